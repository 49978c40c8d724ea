"""Cached latents and prompts, and batches that depend on (seed, step) alone.

Nothing here has state: step k draws the same images, noise and times whatever ran before it and
however many processes share it, each of which takes its slices of the whole.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.training.buckets import turn
from finetune.training.loss import offset_noise
from orchard.images.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What the frozen encoders say of the training images.

    ``mean`` and ``std``: (2, C, h, w) for each of N images, the posterior of it and of its mirror image;
    ``prompts``: the text states of P prompts by name, (P, ...) each; ``prompt_of``: (N,) their row of each
    image.
    """

    mean: Sequence[Tensor]
    std: Sequence[Tensor]
    prompts: dict[str, Tensor]
    prompt_of: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    @functools.cached_property
    def buckets(self) -> list[list[int]]:
        """The images by the shape of their latents, which a batch shares."""
        shapes = [mean.shape for mean in self.mean]
        return [[row for row, shape in enumerate(shapes) if shape == one] for one in sorted(set(shapes))]


def assemble(
    latents: Sequence[tuple[Tensor, Tensor]],
    prompts: Sequence[str],
    encode: Callable[[Sequence[str]], dict[str, Tensor]],
) -> Cache:
    """The cache of N images: their (mean, deviation), their prompts, and what gives the prompts' states."""
    unique = sorted(set(prompts))
    place = {prompt: row for row, prompt in enumerate(unique)}
    return Cache(
        mean=[mean for mean, _ in latents],
        std=[std for _, std in latents],
        prompts=encode(unique),
        prompt_of=torch.tensor([place[prompt] for prompt in prompts]),
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A slice of a step.

    ``latents`` and ``noise``: (b, C, h, w); ``times``: (b,) float64 on the CPU, uniform in [0, 1), which
    the family turns into noise levels; ``text``: text states by name, (b, ...) each; ``rows``: the images.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    text: dict[str, Tensor]
    rows: list[int]

    def to(self, device: Any) -> "Batch":
        """The same batch with latents, noise and text on ``device``; not every device has float64."""
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            text={name: state.to(device) for name, state in self.text.items()},
        )


def rows_of(nth: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Which of a bucket's ``count`` images batch number ``nth`` holds.

    Every epoch is a fresh permutation, batches run across its end.
    """
    first = nth * batch_size
    wanted = range(first, first + batch_size)
    orders = {epoch: _order(epoch, count, seed) for epoch in {i // count for i in wanted}}
    return [int(orders[i // count][i % count]) for i in wanted]


def _order(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(stable_hash("order", seed, epoch)).permutation(count)


def draw(
    cache: Cache,
    step: int,
    *,
    batch_size: int,
    seed: int,
    flip: bool,
    noise_offset: float = 0.0,
    part: int = 0,
    parts: int = 1,
) -> Batch:
    """Slice ``part`` of ``parts`` of a step, which processes work on at once or one after another."""
    bucket, nth = turn(step, [len(images) for images in cache.buckets], seed)
    images = cache.buckets[bucket]
    rows = [images[k] for k in rows_of(nth, len(images), batch_size, seed)]
    generator = torch.Generator().manual_seed(stable_hash("noise", seed, step))
    shape = (batch_size, *cache.mean[rows[0]].shape[1:])
    posterior = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    times = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    mirrored = torch.randint(2, (batch_size,), generator=generator) * int(flip)
    shifts = torch.randn(shape[:2], generator=generator)
    mine = slice(part, None, parts)
    drawn = list(zip(rows, mirrored.tolist(), strict=True))[mine]
    mean = torch.stack([cache.mean[row][side] for row, side in drawn])
    std = torch.stack([cache.std[row][side] for row, side in drawn])
    prompts = cache.prompt_of[rows[mine]]
    return Batch(
        latents=mean + std * posterior[mine],
        noise=offset_noise(noise[mine], shifts[mine], noise_offset),
        times=times[mine],
        text={name: states[prompts] for name, states in cache.prompts.items()},
        rows=rows[mine],
    )
