"""Train one classifier for a fixed number of steps; the result is the average of its weights."""

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from classify.augment import BLENDS, Changes, augment, blend, changes, strength_of
from classify.batch_parts import WHOLE, Part
from classify.config import Training
from classify.features import solve_last_layer
from classify.mixing import UNION, Mixing, rows_of, weights_of
from orchard import memory
from orchard.classifiers.networks import build
from orchard.classifiers.predict import autocast, moved, probabilities
from orchard.classifiers.pretrained import FEATURES
from orchard.images.arrays import Images, fits, joined
from orchard.images.splits import stable_hash

WARM_UP = 0.1
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.05
AVERAGING = 0.98
AT_ONCE = 256
"""Images that are put on a device together."""

Labelled = tuple[Images, np.ndarray]
"""(N, H, W, 3) uint8 pixels and (N,) int64 labels."""


class Batch(NamedTuple):
    """What one step learns from."""

    images: Tensor
    """(B, 3, H, W) floats in [0, 1]."""
    labels: Tensor
    """(B,) int64, or (B, K) shares of each class."""
    weights: Tensor | None = None
    """(B,) weights of the losses, which sum to 1 over all processes; None where all weigh the same."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step."""

    index: int
    """Counted from 1."""
    loss: float
    """Mean cross-entropy of the batch, in nats."""
    seconds: float = 0.0
    """Time from batch to updated weights: what was spent in the network."""
    skipped: bool = False
    """Whether the loss scaler left the weights as they were, since gradients of float16 overflowed."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained classifier."""

    model: nn.Module
    """In evaluation mode, on the device it was trained on."""
    validation_accuracy: float | None
    """Share of validation images it gets right; None where there were none."""
    seconds_network: float = 0.0
    """Time spent in the network while training."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one classifier learns from, and how."""

    train: Labelled
    """Real images, or whatever the only source is."""
    synthetic: Labelled | None = None
    """Images of the second source, mixed with the first."""
    mixing: Mixing = UNION
    validation: Labelled
    """Images that score the result and choose nothing in it; there may be none."""
    classes: int
    names: tuple[str, ...] = ()
    """Of the classes, in the order of their labels: what pretrained outputs are told apart by."""
    options: Training
    seed: int
    device: torch.device
    dtype: torch.dtype
    """Arithmetic of the network."""
    part: Part = WHOLE
    """Of each batch, what this process computes; all processes get the same weights."""

    def images(self) -> Labelled:
        """Both sources, the first one first."""
        if self.synthetic is None or not len(self.synthetic[1]):
            return self.train
        (real, labels), (synthetic, others) = self.train, self.synthetic
        return joined(real, synthetic), np.concatenate([labels, others])

    def network(self) -> nn.Module:
        """The network before its first step, on the device."""
        size, weights = self.train[0].shape[1], self.options.pretrained
        network = build(self.options.model, self.classes, size, self.seed, weights, self.names)
        return network.to(self.device)

    def scored(self, model: nn.Module) -> float | None:
        """Share of validation images that ``model`` gets right, or None where there are none."""
        return accuracy(model, self.validation, self.device, self.dtype)


def fit(task: Task, on_step: Callable[[Step], None] | None = None) -> Fitted:
    """Train the classifier of a task; ``on_step`` is called after every optimiser step.

    With ``features:NAME`` the last layer is a logistic regression. Its features are the network's with
    ``options.pretrained``, else those it learns from ``train`` (from ``synthetic`` where that is empty).

    Raises:
        FloatingPointError: the loss of a step is not finite.
    """
    if not task.options.model.startswith(FEATURES):
        return _train(task, on_step)
    if task.options.pretrained:
        model, seconds = task.network().eval(), 0.0
    else:
        learned = task.train if len(task.train[1]) or task.synthetic is None else task.synthetic
        trained = _train(replace(task, train=learned, synthetic=None), on_step)
        model, seconds = trained.model, trained.seconds_network
    pixels, labels = task.images()
    weights = weights_of(task.mixing, torch.arange(len(labels)) < len(task.train[1]))
    solve_last_layer(model, pixels, labels, weights, task.device, task.dtype)
    return Fitted(model=model, validation_accuracy=task.scored(model), seconds_network=seconds)


def _train(task: Task, on_step: Callable[[Step], None] | None) -> Fitted:
    """Train the options' number of steps on all images; keep the averaged last weights.

    Validation images choose nothing: the best of ten checkpoints by a few dozen of them was often an early,
    worse one (docs/log/fruit.md). The same task gives the same weights bit for bit on a CPU; several
    processes find the gradients of one to rounding, but for dropout and stochastic depth.
    """
    images, options, real = task.images(), task.options, len(task.train[1])
    assert len(images[1]) >= 1
    mixing = task.mixing if 0 < real < len(images[1]) else UNION
    seconds = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(task.seed + task.part.rank)  # for dropout; all else has its own
        model = task.network()
        batches = batch_stream(images, real, task.classes, options, mixing, task.seed, task.device, task.part)
        averaged = Averaged(model)
        for step in train_steps(model, batches, options, task.device, task.dtype, task.part):
            if not step.skipped:
                averaged.update(model)
            seconds += step.seconds
            if on_step is not None:
                on_step(step)
    trained = averaged.model.eval()
    return Fitted(model=trained, validation_accuracy=task.scored(trained), seconds_network=seconds)


class Averaged:
    """Exponential moving average of a network's weights and buffers, which forgets its first steps faster.

    torch's `AveragedModel` compares a tensor for every weight, and each comparison waits for the GPU.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = deepcopy(model)
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more step; the first ones are taken as they are."""
        kept = min(AVERAGING, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        pairs = list(zip(_values(self.model), _values(model), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1 - kept)
        for old, new in pairs:
            if not old.is_floating_point():  # counters of batch norm
                old.copy_(new)
        self.updates += 1


def _values(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def train_steps(
    model: nn.Module,
    batches: Iterator[Batch],
    options: Training,
    device: torch.device,
    dtype: torch.dtype,
    part: Part = WHOLE,
) -> Iterator[Step]:
    """Train ``model`` in place, yielding after each of ``options.steps`` optimiser steps.

    ``batches`` holds this process's part of each, whose losses add up to the batch's.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    model.train()
    network = part.data_parallel(model)
    for index in range(1, options.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * schedule(index, options.steps)
        batch = next(batches)
        started = time.perf_counter()
        with autocast(device, dtype), part.normalising():
            logits = network(batch.images)
        loss = loss_of(logits.float(), batch)
        # The one wait for the GPU in a step: a bad loss must not reach the weights.
        value = part.summed(loss).item()
        if not math.isfinite(value):
            raise FloatingPointError(f"loss is {value} at step {index} of {options.steps}")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss * part.count).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped = scaler.get_scale() < scale
        yield Step(index=index, loss=value, seconds=time.perf_counter() - started, skipped=skipped)


def loss_of(logits: Tensor, batch: Batch) -> Tensor:
    """(B, K) logits -> the batch's cross-entropy in nats, its labels smoothed and its rows weighed."""
    if batch.weights is None:
        return functional.cross_entropy(logits, batch.labels, label_smoothing=LABEL_SMOOTHING)
    rows = functional.cross_entropy(logits, batch.labels, label_smoothing=LABEL_SMOOTHING, reduction="none")
    return (rows * batch.weights).sum()


def schedule(index: int, steps: int) -> float:
    """Share of the peak learning rate at step ``index`` in 1..steps: linear warm-up, then cosine."""
    warm_up = math.ceil(WARM_UP * steps)
    if index <= warm_up:
        return index / warm_up
    return 0.5 * (1 + math.cos(math.pi * (index - warm_up) / (steps - warm_up + 1)))


def batch_stream(
    train: Labelled,
    real: int,
    classes: int,
    options: Training,
    mixing: Mixing,
    seed: int,
    device: torch.device,
    part: Part = WHOLE,
) -> Iterator[Batch]:
    """Endless augmented batches, always full; the first ``real`` images of ``train`` are real ones.

    Every process makes all draws of a batch, and decodes, augments and gives its part.
    """
    pixels, labels = on_device(train[0], device), torch.from_numpy(train[1])
    strength = strength_of(options)
    generator = torch.Generator().manual_seed(stable_hash("augmentation", seed))
    order = torch.Generator().manual_seed(stable_hash("order", seed))
    for rows in rows_of(mixing, labels, real, options.batch_size, options.steps, order):
        is_real = rows < real
        weights = weights_of(mixing, is_real)
        if weights is None and part.count > 1:
            weights = torch.full((len(rows),), 1 / len(rows))
        drawn = changes(len(rows), strength, generator)
        # The pairs of a blend lie anywhere in the batch.
        taken = WHOLE if options.augmentation in BLENDS else part
        images = augment(pixels(taken.of(rows)), Changes(*map(taken.of, drawn)))
        targets = moved(labels[taken.of(rows)], device)
        if options.augmentation in BLENDS:
            blended = blend(images, targets, is_real, classes, options.augmentation, generator)
            images, targets = map(part.of, blended)
        yield Batch(images, targets, None if weights is None else moved(part.of(weights), device))


def on_device(pixels: Images, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What takes (B,) rows on the CPU and gives (B, H, W, 3) uint8 on the device.

    Images that take at most `orchard.files.scratch.SHARE` of a device's free memory are all put there first.
    """
    if device.type == "cpu" or not fits(pixels, memory.free_on(device)):
        return lambda rows: moved(torch.from_numpy(pixels[rows.numpy()]), device)
    there = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), AT_ONCE):
        there[start : start + AT_ONCE] = torch.from_numpy(pixels[start : start + AT_ONCE])
    return lambda rows: there[moved(rows, device)]


def accuracy(model: nn.Module, images: Labelled, device: torch.device, dtype: torch.dtype) -> float | None:
    """Share of ``images`` that ``model`` gets right, or None where there are none."""
    pixels, labels = images
    if not len(labels):
        return None
    found = probabilities(model, pixels, device, dtype)
    return float((found.argmax(axis=1) == labels).mean())
