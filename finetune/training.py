"""The training loop: one adapter, one generator of steps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune.batches import Batch, Cache, draw
from finetune.config import TrainLora
from finetune.families import Family
from finetune.optimizers import KINDS, RELATIVE, build, switch
from orchard.splits import stable_hash

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


def _draw(cache: Cache, step: int, seed: int, config: TrainLora, accelerator: Any) -> Batch:
    """This process's slice of a step."""
    return draw(
        cache,
        step,
        batch_size=config.batch_size,
        seed=seed,
        flip=config.flip,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )


def _set_rate(optimizer: Any, config: TrainLora, step: int) -> None:
    falls = KINDS[config.optimizer].scheduled
    rate = learning_rate(step, config.steps, config.learning_rate, falls=falls)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RELATIVE, 1.0)


def train_steps(
    family: Family,
    cache: Cache,
    parameters: Sequence[torch.nn.Parameter],
    names: Sequence[str],
    config: TrainLora,
    accelerator: Any,
    *,
    prior: Cache | None = None,
    optimizer: Any = None,
    start: int = 0,
) -> Iterator[Step]:
    """Optimise ``parameters`` and yield after every step from ``start`` on.

    An epoch is one of ``cache``; ``prior`` gives as many images to each step (DreamBooth's second term).
    ``optimizer`` is a prepared one whose state the caller keeps, by default a fresh one of the config's kind.

    Raises:
        FloatingPointError: the loss is not finite; names the images of the batch.
    """
    if optimizer is None:
        optimizer = accelerator.prepare(build(config.optimizer, config.learning_rate, parameters))
    network = accelerator.prepare(family.network)
    network.train()
    switch(optimizer, training=True)
    for index in range(start, config.steps):
        batch = _draw(cache, index, config.seed, config, accelerator)
        _set_rate(optimizer, config, index)
        with accelerator.autocast():
            loss = family.loss(network, batch, config.snr_gamma)
            if prior is not None:
                kept = _draw(prior, index, stable_hash("prior", config.seed), config, accelerator)
                loss = loss + config.prior_weight * family.loss(network, kept, config.snr_gamma)
        value = accelerator.reduce(loss.detach(), "mean").item()
        if not math.isfinite(value):
            files = ", ".join(names[row] for row in batch.rows)
            raise FloatingPointError(f"loss is not finite at step {index}; the batch held {files}")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield Step(index=index, loss=value, learning_rate=optimizer.param_groups[0]["lr"])
    _finish(network, optimizer, parameters, accelerator)


def _finish(network: Any, optimizer: Any, parameters: Sequence[torch.nn.Parameter], accelerator: Any) -> None:
    switch(optimizer, training=False)
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise FloatingPointError("the weights are not finite after the last step")
    # Else each adapter of a run would wrap the same network once more.
    accelerator.unwrap_model(network, keep_fp32_wrapper=False).eval()
    accelerator.free_memory()
