"""Fit one classifier: a fixed number of steps, the averaged weights of the last one kept."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from classify.augment import Strength, augment
from classify.config import TrainingOptions
from orchard.networks import build
from orchard.predict import autocast, probabilities
from orchard.splits import stable_hash

WARM_UP = 0.1
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.05
AVERAGING = 0.98

Labelled = tuple[np.ndarray, np.ndarray]
"""(N, H, W, 3) uint8 pixels and (N,) int64 labels."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step."""

    index: int
    """Counted from 1."""
    loss: float
    """Mean cross-entropy of the batch, in nats."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained classifier."""

    model: nn.Module
    """In evaluation mode, on the device it was trained on."""
    validation_accuracy: float | None
    """Share of validation images it gets right; None where there were none."""


def fit(
    *,
    train: Labelled,
    validation: Labelled,
    classes: int,
    options: TrainingOptions,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    on_step: Callable[[Step], None] | None = None,
) -> Fitted:
    """Train ``options.steps`` steps and keep the averaged weights of the last one.

    Validation images score the result and choose nothing in it: the best of ten checkpoints by a few
    dozen images was often an early, worse one (docs/fruit.md). The same arguments give the same weights
    bit for bit on a CPU.

    Raises:
        FloatingPointError: the loss of a step is not finite.
    """
    pixels, labels = train
    assert len(pixels) == len(labels) >= 1, (len(pixels), len(labels))
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for dropout; weights, order and augmentation have their own
        model = build(options.model, classes, pixels.shape[1], seed).to(device)
        batches = batch_stream(train, options.batch_size, Strength(flip=options.flip), seed, device)
        averaged = AveragedModel(model, avg_fn=_averaged, use_buffers=True)
        for step in train_steps(model, batches, options, device, dtype):
            averaged.update_parameters(model)
            if on_step is not None:
                on_step(step)
    kept = averaged.module.eval()
    return Fitted(model=kept, validation_accuracy=accuracy(kept, validation, device, dtype))


def _averaged(old: Tensor, new: Tensor, updates: int | Tensor) -> Tensor:
    """Exponential moving average of the weights, which forgets its first steps faster."""
    return old + (new - old) * (1 - min(AVERAGING, (1 + updates) / (10 + updates)))


def train_steps(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    options: TrainingOptions,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[Step]:
    """Train ``model`` in place, yielding after each of ``options.steps`` optimiser steps."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    model.train()
    for index in range(1, options.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * schedule(index, options.steps)
        images, labels = next(batches)
        with autocast(device, dtype):
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"loss is {value} at step {index} of {options.steps}")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        yield Step(index=index, loss=value)


def schedule(index: int, steps: int) -> float:
    """Share of the peak learning rate at step ``index`` in 1..steps: linear warm-up, then cosine."""
    warm_up = math.ceil(WARM_UP * steps)
    if index <= warm_up:
        return index / warm_up
    return 0.5 * (1 + math.cos(math.pi * (index - warm_up) / (steps - warm_up + 1)))


def batch_stream(
    train: Labelled, batch_size: int, strength: Strength, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless augmented batches, always full: (B, 3, H, W) floats in [0, 1] and (B,) labels."""
    pixels, labels = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in train)
    generator = torch.Generator().manual_seed(stable_hash("augmentation", seed))
    order = torch.Generator().manual_seed(stable_hash("order", seed))
    for rows in row_stream(len(labels), batch_size, order):
        rows = rows.to(device)
        yield augment(pixels[rows], strength, generator), labels[rows]


def row_stream(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless (batch_size,) rows from one shuffled epoch after the other; batches may span epochs."""
    rows = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rows) < batch_size:
            rows = torch.cat([rows, torch.randperm(count, generator=generator)])
        yield rows[:batch_size]
        rows = rows[batch_size:]


def accuracy(model: nn.Module, images: Labelled, device: torch.device, dtype: torch.dtype) -> float | None:
    """Share of ``images`` that ``model`` gets right, or None where there are none."""
    pixels, labels = images
    if not len(labels):
        return None
    found = probabilities(model, pixels, device, dtype)
    return float((found.argmax(axis=1) == labels).mean())
