"""Options that are left out: what is usual for the base stands in for them."""

from dataclasses import replace

from finetune.config import TrainLora
from finetune.training.optimizers import KINDS
from orchard.bases import usual
from orchard.bases.bases import FLOW, Base


def resolve(config: TrainLora, base: Base, processes: int) -> TrainLora:
    """The options with every number that depends on the base.

    Raises:
        UserError: the base's own shift is no number, or not one that `--shift` takes.
    """
    batch_size, accumulation = _batches(config, base, processes)
    rate = 1.0 if KINDS[config.optimizer].finds_scale else usual.training(base, config.method).learning_rate
    resolved = replace(
        config,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=config.learning_rate or rate,
        shift=config.shift or usual.shift(base),
    )
    resolved.require_valid()
    return resolved


def _batches(config: TrainLora, base: Base, processes: int) -> tuple[int, int]:
    """Images per batch and batches per step."""
    found = usual.training(base, config.method)
    if config.batch_size or config.accumulation:
        return config.batch_size or found.batch_size, config.accumulation or 1
    images = found.batch_size * found.accumulation
    # A step of as many images, though each process needs one of each batch.
    size = found.batch_size if found.batch_size % processes == 0 or images % processes else processes
    return size, images // size


def lines(config: TrainLora, base: Base) -> list[str]:
    """Of resolved options, those that are what is usual for the base, and who says so."""
    found = usual.training(base, config.method)
    images = found.batch_size * found.accumulation
    parts = []
    if config.learning_rate == found.learning_rate:
        parts.append(f"learning rate {config.learning_rate:g}")
    if config.batch_size * config.accumulation == images:
        parts.append(f"{images} images per step")
    if parts:
        parts = [f"{' and '.join(parts)} ({found.source})"]
    if base.prediction_type == FLOW and config.shift == usual.shift(base):
        parts.append(f"shift {config.shift:g} (its scheduler)")
    kind = base.name if base.name in usual.TRAINING else base.family
    return [f"usual     for {kind}: {', '.join(parts)}"] if parts else []
