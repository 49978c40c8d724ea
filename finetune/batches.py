"""Cached latents and prompts, and batches that depend on (seed, step) alone.

Nothing here has state: step k draws the same images, noise and timesteps whatever ran before it and
however many processes share it, each of which takes its slice of the whole batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orchard.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What the frozen encoders say of the training images.

    ``mean`` and ``std``: (2, N, C, h, w), the posterior of each image and of its mirror image;
    ``prompts``: (P, L, D) text states; ``prompt_of``: (N,) row of ``prompts`` of each image.
    """

    mean: Tensor
    std: Tensor
    prompts: Tensor
    prompt_of: Tensor

    def __len__(self) -> int:
        return self.mean.shape[1]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's slice of a step: (b, C, h, w) latents and noise, (b,) timesteps, (b, L, D) text."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor
    rows: list[int]


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
    timesteps: int,
    flip: bool,
    process: int = 0,
    processes: int = 1,
) -> Batch:
    """The slice of step ``step`` that ``process`` of ``processes`` works on."""
    rows = rows_of(step, len(cache), batch_size, seed)
    generator = torch.Generator().manual_seed(stable_hash("noise", seed, step))
    shape = (batch_size, *cache.mean.shape[2:])
    posterior = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    times = torch.randint(timesteps, (batch_size,), generator=generator)
    mirrored = torch.randint(2, (batch_size,), generator=generator) * int(flip)
    mine = slice(process, None, processes)
    index = torch.tensor(rows)[mine]
    latents = cache.mean[mirrored[mine], index] + cache.std[mirrored[mine], index] * posterior[mine]
    return Batch(
        latents=latents,
        noise=noise[mine],
        timesteps=times[mine],
        text=cache.prompts[cache.prompt_of[index]],
        rows=index.tolist(),
    )
