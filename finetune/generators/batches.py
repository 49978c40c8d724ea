"""Photos as pixels, and the batch of each step, which depends on (seed, step) alone."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from finetune.generators.config import TrainGenerator
from finetune.step.batches import rows_of
from orchard.images import images
from orchard.images.images import ImageSet, Photo
from orchard.images.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's part of a step, b images."""

    pixels: Tensor
    """(b, 3, S, S) in [-1, 1]."""
    labels: Tensor
    """(b,) numbers of the classes."""
    files: Sequence[str]
    generator: torch.Generator
    """On the CPU, for all else that the step draws."""


@dataclass(frozen=True, kw_only=True)
class Photos:
    """N photos of a run."""

    pixels: Tensor
    """(N, 3, S, S) uint8."""
    labels: Tensor
    """(N,) int64."""
    files: Sequence[str]

    def batch(self, step: int, config: TrainGenerator, accelerator: Accelerator) -> Batch:
        """This process's part of step number ``step``; every epoch is a fresh permutation."""
        process, processes, device = accelerator.process_index, accelerator.num_processes, accelerator.device
        rows = rows_of(step, len(self.labels), config.batch_size, config.seed)[process::processes]
        generator = torch.Generator().manual_seed(stable_hash("step", config.seed, step, process))
        mirrored = (torch.rand(len(rows), generator=generator) < 0.5) & config.flip
        pixels = self.pixels[rows].float() / 127.5 - 1
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        return Batch(
            pixels=pixels.to(device),
            labels=self.labels[rows].to(device),
            files=[self.files[row] for row in rows],
            generator=generator,
        )


def load(found: ImageSet, classes: Sequence[str], config: TrainGenerator) -> Photos:
    """Decode the photos of these classes, which are numbered in this order."""

    def one(photo: Photo) -> np.ndarray:
        keep = photo.boxes() if config.fit == "crop" else ()
        return np.asarray(images.framed(photo.image(), (config.size, config.size), config.fit, keep))

    with ThreadPoolExecutor() as pool:
        pixels = torch.from_numpy(np.stack(list(pool.map(one, found.photos))))
    return Photos(
        pixels=pixels.permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor([classes.index(photo.label) for photo in found.photos]),
        files=[photo.path for photo in found.photos],
    )
