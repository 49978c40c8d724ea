"""Aspect buckets: image sizes of about one area, and which of them each step takes its batch from.

A step depends on (seed, step) alone, as in `finetune.step.batches`.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from orchard.images.splits import stable_hash

MULTIPLE = 64
"""Sides in pixels are multiples of this: latents can then be halved three times more."""
LONGEST = 2.0
"""Longer side over shorter side, at most."""
LEAST = 512
"""Smallest resolution of a base, in pixels, with buckets other than the square."""


def sizes(resolution: int) -> list[tuple[int, int]]:
    """(height, width) of every bucket: about ``resolution`` squared pixels, sides multiples of 64.

    The square alone below `LEAST`, where a step of 64 pixels would change the area too much.
    """
    if resolution < LEAST:
        return [(resolution, resolution)]
    found = {(resolution, resolution)}
    for long in range(resolution, 2 * resolution, MULTIPLE):
        short = round(resolution**2 / long / MULTIPLE) * MULTIPLE
        if long <= LONGEST * short:
            found |= {(long, short), (short, long)}
    return sorted(found)


def nearest(size: tuple[int, int], choices: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket whose proportions are nearest to those of an image of (height, width)."""
    return min(choices, key=lambda choice: abs(_proportion(choice) - _proportion(size)))


def _proportion(size: tuple[int, int]) -> float:
    return math.log(size[0] / size[1])


def bucket_of_step(step: int, counts: Sequence[int], seed: int) -> tuple[int, int]:
    """Which bucket the batch of ``step`` comes from, and how many batches came from it before.

    ``counts``: images per bucket. In as many steps as there are images, a bucket of n images comes n times,
    spread evenly, so every image is drawn equally often.
    """
    cycle, position = divmod(step, sum(counts))
    order = _order(tuple(counts), cycle, seed)
    bucket = order[position]
    return bucket, cycle * counts[bucket] + order[:position].count(bucket)


@functools.lru_cache(maxsize=8)
def _order(counts: tuple[int, ...], cycle: int, seed: int) -> list[int]:
    """The bucket of each step of a cycle: batch k of n stands at (k + phase) / n of it."""
    phases = np.random.default_rng(stable_hash("buckets", seed, cycle)).random(len(counts))
    batches = [
        ((nth + phase) / count, bucket)
        for bucket, (count, phase) in enumerate(zip(counts, phases, strict=True))
        for nth in range(count)
    ]
    return [bucket for _, bucket in sorted(batches)]
