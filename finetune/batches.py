"""Cached latents and prompts, and batches that depend on (seed, step) alone.

Nothing here has state: step k draws the same images, noise and times whatever ran before it and
however many processes share it, each of which takes its slices of the whole.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.loss import offset_noise
from orchard.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What the frozen encoders say of the training images.

    ``mean`` and ``std``: (2, N, C, h, w), the posterior of each image and of its mirror image;
    ``prompts``: the text states of P prompts by name, (P, ...) each; ``prompt_of``: (N,) their row of each
    image.
    """

    mean: Tensor
    std: Tensor
    prompts: dict[str, Tensor]
    prompt_of: Tensor

    def __len__(self) -> int:
        return self.mean.shape[1]


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


def rows_of(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Image numbers of a step: every epoch is a fresh permutation, batches run across its end."""
    first = step * batch_size
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
    rows = rows_of(step, len(cache), batch_size, seed)
    generator = torch.Generator().manual_seed(stable_hash("noise", seed, step))
    shape = (batch_size, *cache.mean.shape[2:])
    posterior = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    times = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    mirrored = torch.randint(2, (batch_size,), generator=generator) * int(flip)
    shifts = torch.randn(shape[:2], generator=generator)
    mine = slice(part, None, parts)
    index = torch.tensor(rows)[mine]
    latents = cache.mean[mirrored[mine], index] + cache.std[mirrored[mine], index] * posterior[mine]
    return Batch(
        latents=latents,
        noise=offset_noise(noise[mine], shifts[mine], noise_offset),
        times=times[mine],
        text={name: states[cache.prompt_of[index]] for name, states in cache.prompts.items()},
        rows=index.tolist(),
    )
