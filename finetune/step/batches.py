"""Encoded photos and prompts to train on, and batches that depend on (seed, step) alone.

Nothing here has state: step k draws the same images, noise and times whatever ran before it and
however many processes share it, each of which takes its slices of the whole.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from finetune.step.buckets import bucket_of_step
from finetune.step.loss import offset_noise
from orchard.images.splits import stable_hash

T = TypeVar("T")


@dataclass(frozen=True)
class Lazy(Sequence[T]):
    """``length`` things, each made anew whenever it is asked for, so that none takes memory meanwhile."""

    length: int
    make: Callable[[int], T]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: Any) -> Any:
        return self.make(range(self.length)[row])


@dataclass(frozen=True, kw_only=True)
class Masked:
    """K masks of an image and of its mirror image, and what each leaves of it, as the encoder sees it."""

    masks: Tensor
    """(2, K, 1, h, w) bool: true where the image is hidden."""
    mean: Tensor
    """(2, K, C, h, w): the mean of the posterior of what is left."""
    std: Tensor
    """Likewise its standard deviation."""

    def condition(self, side: int, place: float, noise: Tensor) -> Tensor:
        """(1 + C, h, w): mask number K x ``place`` of a ``side``, and latents by (C, h, w) ``noise``."""
        drawn = side, int(place * self.masks.shape[1])
        return torch.cat([self.masks[drawn].to(noise.dtype), self.mean[drawn] + self.std[drawn] * noise])


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """The posteriors of an image's latents and of its mirror image's."""

    mean: Tensor
    """(2, C, h, w)."""
    std: Tensor
    """(2, C, h, w)."""
    masked: Masked | None = None
    """For a base that inpaints."""


@dataclass(frozen=True, kw_only=True)
class EncodedDataset:
    """N images and their P prompts, as the frozen encoders encode them: in memory, or on disk (`Lazy`)."""

    images: Sequence[EncodedImage]
    sizes: Sequence[tuple[int, int]]
    """(height, width) of each image, in pixels: a batch holds images of one size."""
    prompts: Sequence[dict[str, Tensor]]
    """Of each prompt its embeddings, and token ids for trained text encoders, by name."""
    prompt_of: Tensor
    """(N,) row of each image's prompt in them."""
    empty: int | None = None
    """Row of the empty prompt, where there is one."""

    def __len__(self) -> int:
        return len(self.images)

    @functools.cached_property
    def buckets(self) -> list[list[int]]:
        """The images grouped by their sizes."""
        return grouped(self.sizes)


def grouped(values: Sequence[Any]) -> list[list[int]]:
    """The rows of each value, in the order of the values."""
    rows: dict[Any, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    return [rows[value] for value in sorted(rows)]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What one adapter learns from."""

    photos: EncodedDataset
    files: Sequence[str]
    """Files of the photos, in order."""
    prior: EncodedDataset | None = None
    """Images that the base itself samples, for prior preservation."""
    held_out: EncodedDataset | None = None
    """Photos for the validation loss."""
    classes: Sequence[Sequence[int]] | None = None
    """Rows of the photos of each class, where classes are to be shown equally often."""


def encoded_dataset(
    images: Sequence[EncodedImage],
    sizes: Sequence[tuple[int, int]],
    prompts: Sequence[str],
    encode: Callable[[Sequence[str]], Sequence[dict[str, Tensor]]],
    *,
    with_empty: bool = False,
) -> EncodedDataset:
    """The dataset of N images: the size and the prompt of each, and what encodes the unique prompts.

    ``with_empty`` also encodes the empty prompt.
    """
    unique = sorted({*prompts, *([""] if with_empty else [])})
    rows = {prompt: row for row, prompt in enumerate(unique)}
    return EncodedDataset(
        images=images,
        sizes=sizes,
        prompts=encode(unique),
        prompt_of=torch.tensor([rows[prompt] for prompt in prompts]),
        empty=rows[""] if with_empty else None,
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's slice of a step, b images."""

    latents: Tensor
    """(b, C, h, w)."""
    noise: Tensor
    """(b, C, h, w)."""
    times: Tensor
    """(b,) float64 on the CPU, uniform in [0, 1); the family turns them into noise levels."""
    prompts: dict[str, Tensor]
    """As in `EncodedDataset`, (b, ...) each."""
    rows: list[int]
    """The images' rows in the dataset."""
    condition: Tensor | None = None
    """(b, 1 + C, h, w) for a base that inpaints: the mask, and the latents of what it leaves."""

    def seen(self, noisy: Tensor) -> Tensor:
        """(b, C, h, w) noisy latents -> what the denoiser takes, of the same type and device."""
        return noisy if self.condition is None else torch.cat([noisy, self.condition.to(noisy)], dim=1)

    def to(self, device: Any) -> "Batch":
        """The same batch on ``device``, but for the times: not every device has float64."""
        return replace(
            self,
            latents=self.latents.to(device),
            noise=self.noise.to(device),
            prompts={name: tensor.to(device) for name, tensor in self.prompts.items()},
        )


def rows_of(nth: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Which of a bucket's ``count`` images batch number ``nth`` holds.

    Every epoch is a fresh permutation, batches run across its end.
    """
    first = nth * batch_size
    wanted = range(first, first + batch_size)
    orders = {epoch: _order(epoch, count, seed) for epoch in {i // count for i in wanted}}
    return [int(orders[i // count][i % count]) for i in wanted]


def balanced_rows(nth: int, classes: Sequence[Sequence[int]], batch_size: int, seed: int) -> list[int]:
    """Which images batch number ``nth`` holds, where ``classes`` are lists of images to show equally often.

    Every class comes once in as many places as there are classes, and its images each once in an epoch of
    its own.
    """
    found = []
    for place in range(nth * batch_size, (nth + 1) * batch_size):
        turn, which = divmod(place, len(classes))
        chosen = int(_order(turn, len(classes), stable_hash("classes", seed))[which])
        images = classes[chosen]
        epoch, number = divmod(turn, len(images))
        found.append(images[int(_order(epoch, len(images), stable_hash("class", seed, chosen))[number])])
    return found


@functools.lru_cache(maxsize=8)
def _order(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(stable_hash("order", seed, epoch)).permutation(count)


def draw(
    dataset: EncodedDataset,
    step: int,
    *,
    batch_size: int,
    seed: int,
    flip: bool,
    noise_offset: float = 0.0,
    caption_dropout: float = 0.0,
    classes: Sequence[Sequence[int]] | None = None,
    part: int = 0,
    parts: int = 1,
) -> Batch:
    """Slice ``part`` of ``parts`` of a step's batch, which is divided over processes and accumulation.

    With the rows of ``classes``, whose images share one size then, each class comes equally often.
    """
    bucket, nth = bucket_of_step(step, [len(images) for images in dataset.buckets], seed)
    images = dataset.buckets[bucket]
    if classes is None:
        rows = [images[k] for k in rows_of(nth, len(images), batch_size, seed)]
    else:
        rows = balanced_rows(nth, classes, batch_size, seed)
    generator = torch.Generator().manual_seed(stable_hash("noise", seed, step))
    return _drawn(
        dataset,
        rows,
        generator,
        slice(part, None, parts),
        flip=flip,
        noise_offset=noise_offset,
        caption_dropout=caption_dropout,
    )


def draw_each(
    dataset: EncodedDataset,
    rows: Sequence[int],
    step: int,
    *,
    seed: int,
    flip: bool,
    noise_offset: float = 0.0,
    caption_dropout: float = 0.0,
) -> Batch:
    """The batch of ``rows``, at least one, whose draws depend on (seed, step, row): not on the other rows."""
    generators = [torch.Generator().manual_seed(stable_hash("noise", seed, step, row)) for row in rows]
    drawn = functools.partial(_drawn, flip=flip, noise_offset=noise_offset, caption_dropout=caption_dropout)
    parts = [drawn(dataset, [row], one) for row, one in zip(rows, generators, strict=True)]
    conditions = [part.condition for part in parts if part.condition is not None]
    return Batch(
        latents=torch.cat([part.latents for part in parts]),
        noise=torch.cat([part.noise for part in parts]),
        times=torch.cat([part.times for part in parts]),
        prompts={name: torch.cat([part.prompts[name] for part in parts]) for name in parts[0].prompts},
        rows=list(rows),
        condition=torch.cat(conditions) if conditions else None,
    )


def _drawn(
    dataset: EncodedDataset,
    rows: list[int],
    generator: torch.Generator,
    mine: slice = slice(None),
    *,
    flip: bool,
    noise_offset: float,
    caption_dropout: float,
) -> Batch:
    """The slice ``mine`` of a batch of images, with what the ``generator`` draws for all of it."""
    images = [dataset.images[row] for row in rows[mine]]
    shape = (len(rows), *images[0].mean.shape[1:])
    posterior = torch.randn(shape, generator=generator)
    noise = torch.randn(shape, generator=generator)
    times = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    mirrored = torch.randint(2, (len(rows),), generator=generator) * int(flip)
    shifts = torch.randn(shape[:2], generator=generator)
    dropped = torch.rand(len(rows), generator=generator) < caption_dropout
    drawn = list(zip(images, mirrored[mine].tolist(), strict=True))
    mean = torch.stack([image.mean[side] for image, side in drawn])
    std = torch.stack([image.std[side] for image, side in drawn])
    prompts = dataset.prompt_of[rows[mine]]
    if dataset.empty is not None:
        prompts = torch.where(dropped[mine], dataset.empty, prompts)
    return Batch(
        latents=mean + std * posterior[mine],
        noise=offset_noise(noise[mine], shifts[mine], noise_offset),
        times=times[mine],
        prompts=_prompts(dataset, prompts.tolist()),
        rows=rows[mine],
        condition=_condition(drawn, shape, generator, mine),
    )


def _prompts(dataset: EncodedDataset, rows: Sequence[int]) -> dict[str, Tensor]:
    """`Batch.prompts` of these; one that several images share is read once."""
    found = {row: dataset.prompts[row] for row in set(rows)}
    return {name: torch.stack([found[row][name] for row in rows]) for name in found[rows[0]]}


def _condition(
    drawn: Sequence[tuple[EncodedImage, int]],
    shape: tuple[int, ...],
    generator: torch.Generator,
    mine: slice,
) -> Tensor | None:
    """`Batch.condition` of the ``drawn`` images and sides, one slice of a batch of latents of ``shape``."""
    masked = [(image.masked, side) for image, side in drawn if image.masked]
    if not masked:
        return None
    places = torch.rand(shape[0], generator=generator)[mine].tolist()
    noise = torch.randn(shape, generator=generator)[mine]
    parts = zip(masked, places, noise, strict=True)
    return torch.stack([mask.condition(side, place, one) for (mask, side), place, one in parts])
