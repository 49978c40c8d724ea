"""The training loop: one adapter, one generator of steps."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from finetune.config import TrainLora
from finetune.models.family import Family
from finetune.step.batches import Batch, TrainingData, draw
from finetune.step.objective import Objective
from finetune.training.learner import Learner
from finetune.training.optimizers import RELATIVE_RATE
from finetune.training.schedules import learning_rate
from orchard.images.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step: its number from 0, the loss over all processes, the learning rate it took."""

    index: int
    loss: float
    learning_rate: float


def train_steps(
    family: Family,
    data: TrainingData,
    learner: Learner,
    config: TrainLora,
    accelerator: Accelerator,
    start: int = 0,
) -> Iterator[Step]:
    """Train ``learner`` and yield after every optimiser step from ``start`` on.

    ``data.prior`` adds as many images to each step (DreamBooth's second term).

    Raises:
        FloatingPointError: the loss is not finite; names the images of the batch.
    """
    assert accelerator.gradient_accumulation_steps == config.accumulation, accelerator.gradient_state
    objective = Objective.of(config)
    learner.train()
    for index in range(start, config.steps):
        rate = set_learning_rate(learner.optimizer, config, index)
        found = []
        for batch, prior in _batches(data, index, config, accelerator):
            with accelerator.accumulate(learner.network):
                with accelerator.autocast():
                    loss = family.loss(learner.network, batch, objective)
                    if prior is not None:
                        loss = loss + config.prior_weight * family.loss(learner.network, prior, objective)
                found.append((loss.detach(), [data.files[row] for row in batch.rows]))
                accelerator.backward(loss)
                if accelerator.sync_gradients and config.max_grad_norm:
                    accelerator.clip_grad_norm_(learner.parameters, config.max_grad_norm)
                taken = optimizer_step(learner.optimizer)
        # To ask for a loss waits for the device, so it comes once the whole step is handed over. Weights of
        # one that is not finite go no further.
        losses = [mean_loss(loss, accelerator, index, files) for loss, files in found]
        if taken:
            learner.update_average()
        yield Step(index=index, loss=sum(losses) / len(losses), learning_rate=rate)


def set_learning_rate(optimizer: Any, config: TrainLora, step: int) -> float:
    """Set the rate of every parameter group; the first one's, which is the denoiser's."""
    rate = learning_rate(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RELATIVE_RATE, 1.0)
    return rate


def optimizer_step(optimizer: Any) -> bool:
    """Step on the gradients that are there; whether the loss scaler allowed it."""
    scaler = getattr(optimizer, "scaler", None)
    # accelerate's `step_was_skipped` does not see it of a fused optimiser, which skips by itself.
    scale = scaler.get_scale() if scaler else 0.0
    optimizer.step()
    optimizer.zero_grad()
    return not scaler or scaler.get_scale() >= scale


def _batches(
    data: TrainingData, step: int, config: TrainLora, accelerator: Accelerator
) -> Iterator[tuple[Batch, Batch | None]]:
    """This process's batches of a step, one per accumulation: photos, and as many prior images or None."""
    process, processes = accelerator.process_index, accelerator.num_processes
    slice_of = functools.partial(
        draw,
        step=step,
        batch_size=config.batch_size * config.accumulation,
        flip=config.flip,
        noise_offset=config.noise_offset,
        parts=config.accumulation * processes,
    )
    prior_seed = stable_hash("prior", config.seed)
    for turn in range(config.accumulation):
        part = turn * processes + process
        photos = slice_of(
            data.photos,
            seed=config.seed,
            part=part,
            caption_dropout=config.caption_dropout,
            classes=data.classes,
        )
        yield photos, None if data.prior is None else slice_of(data.prior, seed=prior_seed, part=part)


def mean_loss(loss: torch.Tensor, accelerator: Accelerator, index: int, files: Sequence[str]) -> float:
    """The mean of a loss over all processes; raises `FloatingPointError` where it is not finite."""
    value = accelerator.reduce(loss.detach(), "mean").item()
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is not finite at step {index}; the batch held {', '.join(files)}")
    return value
