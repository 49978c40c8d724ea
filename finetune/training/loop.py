"""The training loop: one adapter, one generator of steps."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from finetune.config import TrainLora
from finetune.models.family import Family
from finetune.training.batches import Batch, Cache, draw
from finetune.training.learner import Learner
from finetune.training.objective import Objective
from finetune.training.optimizers import KINDS, RELATIVE
from orchard.images.splits import stable_hash

WARM_UP = 0.05


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step: its number from 0, the loss over all processes, the learning rate it took."""

    index: int
    loss: float
    learning_rate: float


def learning_rate(step: int, steps: int, peak: float, *, falls: bool = True) -> float:
    """Linear warm-up over the first 5% of ``steps``, then a cosine to zero, or the peak throughout."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    if not falls:
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _slices(
    cache: Cache, step: int, seed: int, config: TrainLora, accelerator: Accelerator
) -> Iterator[Batch]:
    """This process's share of a step, a batch at a time."""
    process, processes = accelerator.process_index, accelerator.num_processes
    for turn in range(config.accumulation):
        yield draw(
            cache,
            step,
            batch_size=config.batch_size * config.accumulation,
            seed=seed,
            flip=config.flip,
            noise_offset=config.noise_offset,
            part=turn * processes + process,
            parts=config.accumulation * processes,
        )


def _set_rate(optimizer: Any, config: TrainLora, step: int) -> None:
    falls = KINDS[config.optimizer].scheduled
    rate = learning_rate(step, config.steps, config.learning_rate, falls=falls)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RELATIVE, 1.0)


def train_steps(
    family: Family,
    cache: Cache,
    learner: Learner,
    names: Sequence[str],
    config: TrainLora,
    accelerator: Accelerator,
    *,
    prior: Cache | None = None,
    start: int = 0,
) -> Iterator[Step]:
    """Train ``learner`` and yield after every step from ``start`` on; the last one leaves the final weights.

    An epoch is one of ``cache``; ``prior`` gives as many images to each step (DreamBooth's second term).

    Raises:
        FloatingPointError: the loss is not finite; names the images of the batch.
    """
    assert accelerator.gradient_accumulation_steps == config.accumulation, accelerator.gradient_state
    objective = Objective.of(config)
    learner.start()
    for index in range(start, config.steps):
        _set_rate(learner.optimizer, config, index)
        losses = []
        for batch, kept in zip(*_sources(cache, prior, index, config, accelerator), strict=False):
            with accelerator.accumulate(learner.network):
                with accelerator.autocast():
                    loss = family.loss(learner.network, batch, objective)
                    if kept is not None:
                        loss = loss + config.prior_weight * family.loss(learner.network, kept, objective)
                losses.append(_finite(loss, accelerator, index, [names[row] for row in batch.rows]))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(learner.parameters, 1.0)
                taken = learner.step()
        if taken:
            learner.update_average()
        rate = learner.optimizer.param_groups[0]["lr"]
        yield Step(index=index, loss=sum(losses) / len(losses), learning_rate=rate)
    learner.finish(accelerator)


def _sources(
    cache: Cache, prior: Cache | None, index: int, config: TrainLora, accelerator: Accelerator
) -> tuple[Iterator[Batch], Iterator[Batch | None]]:
    """Batches of the photos, and as many of the base's own pictures, or None."""
    photos = _slices(cache, index, config.seed, config, accelerator)
    if prior is None:
        return photos, itertools.repeat(None)
    return photos, _slices(prior, index, stable_hash("prior", config.seed), config, accelerator)


def _finite(loss: torch.Tensor, accelerator: Accelerator, index: int, files: Sequence[str]) -> float:
    """The mean loss over all processes."""
    value = accelerator.reduce(loss.detach(), "mean").item()
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is not finite at step {index}; the batch held {', '.join(files)}")
    return value
