"""One adapter: train it from the start or from a checkpoint, save it."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from finetune import checkpoints, lora, optimizers, validation
from finetune.checkpoints import Checkpoint
from finetune.config import TrainLora
from finetune.logs import Log
from finetune.material import Material, prepare
from finetune.setup import Job, Setup
from finetune.training import Step, train_steps
from orchard import adapter, run
from orchard.bases import Base
from orchard.errors import UserError
from orchard.images import sha256
from orchard.provenance import Provenance

SOURCES = frozenset(("config", "data", "base", "classes", "joint"))
OUTCOMES = frozenset(
    ("dry_run", "output", "save_every", "keep", "resume", "export", "log_with", "push_to_hub", "private")
)
"""Options that do not change the adapter; what `SOURCES` name is in `identity` by its contents."""


class StopError(Exception):
    """A signal ended the run after a checkpoint; holds the checkpoint and the exit code."""

    def __init__(self, checkpoint: Path, code: int) -> None:
        super().__init__(str(checkpoint))
        self.checkpoint, self.code = checkpoint, code


def identity(config: TrainLora, base: Base, job: Job, precision: str) -> dict[str, Any]:
    """What an adapter depends on; equal ones give equal adapters on one machine."""
    values = ((f.name, getattr(config, f.name)) for f in fields(config) if f.name not in SOURCES | OUTCOMES)
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in values}
    photos = "\n".join(sorted(f"{photo.sha256}:{photo.label}:{photo.text}" for photo in job.photos.photos))
    return options | {
        "precision": precision,
        "classes": list(job.classes),
        "base_digest": base.digest,
        "photos": sha256(photos.encode()),
    }


def is_done(path: Path, same: dict[str, Any]) -> bool:
    """Whether ``path`` is a finished adapter of this very run."""
    if not path.is_file():
        return False
    try:
        found = adapter.read(path).provenance
    except UserError:
        return False
    return found is not None and not run.differences(found.options, same)


def train(
    setup: Setup,
    job: Job,
    pixels: np.ndarray,
    same: dict[str, Any],
    start: Checkpoint | None,
    advance: Callable[[float, str], None],
) -> Path:
    """Train ``job`` on ``pixels`` (N, S, S, 3), from ``start`` where there is one, and write its adapter.

    Raises:
        UserError: the loss is not finite, or something cannot be written.
        StopError: a signal came; a checkpoint was written.
    """
    config, family = setup.config, setup.family
    material = prepare(setup, job, pixels, same["precision"])
    tuned = lora.inject_all(family, setup.targets, config)
    parameters = [parameter for own in tuned.values() for parameter in own]
    groups = lora.groups(tuned, family, config)
    optimizer = optimizers.build(config.optimizer, config.learning_rate, groups)
    optimizer = setup.accelerator.prepare(optimizer)
    losses: list[float] = []
    if start is not None:
        checkpoints.load(start, setup.accelerator, optimizer, parameters)
        losses += start.losses
    elif setup.accelerator.is_main_process:
        checkpoints.clear(checkpoints.folder_of(config.output, job.name))
    log = Log(config, job.name, setup.accelerator, done=len(losses))
    try:
        for step in _steps(setup, material, parameters, optimizer, start=len(losses)):
            losses.append(step.loss)
            log.step(len(losses), _values(setup, material, step))
            advance(1, f"loss {np.mean(losses[-50:]):.4f}")
            _keep(setup, job, optimizer, parameters, losses, same)
    except FloatingPointError as error:
        raise UserError(f"{job.name}: {error}; use a lower --learning_rate or --precision fp32") from None
    path = job.path(config.output)
    if setup.accelerator.is_main_process:
        _save(setup, path, _provenance(setup, job, losses, same))
    for model in family.models.values():
        lora.remove(model)
    setup.accelerator.wait_for_everyone()
    return path


def _steps(setup: Setup, material: Material, parameters: Any, optimizer: Any, start: int) -> Iterator[Step]:
    context = (material.photos, parameters, material.names, setup.config, setup.accelerator)
    return train_steps(setup.family, *context, prior=material.prior, optimizer=optimizer, start=start)


def _values(setup: Setup, material: Material, step: Step) -> dict[str, float]:
    """What the log says of a step; the loss on held-out photos where one is due."""
    values = {"loss": step.loss, "learning_rate": step.learning_rate}
    every = setup.config.validate_every
    if material.held_out is not None and step.index % every == every - 1:
        with setup.accelerator.autocast():
            values["validation_loss"] = validation.loss(setup.family, material.held_out, setup.config.seed)
    return values


def _keep(
    setup: Setup, job: Job, optimizer: Any, parameters: Any, losses: list[float], same: dict[str, Any]
) -> None:
    """Save a checkpoint where one is due or a signal came; after a signal raise `StopError`."""
    config, accelerator = setup.config, setup.accelerator
    code = setup.interrupt.agreed(accelerator)
    due = config.save_every and len(losses) % config.save_every == 0
    if len(losses) == config.steps or not (code or due):
        return
    folder = checkpoints.folder_of(config.output, job.name)
    path = checkpoints.save(folder, accelerator, optimizer, parameters, losses, same)
    if accelerator.is_main_process:
        checkpoints.prune(folder, config.keep)
    if code:
        raise StopError(path, code)


def _save(setup: Setup, path: Path, origin: Provenance) -> None:
    """Write the adapter, and in the folder ``kohya`` the same for other tools where that was asked for."""
    family = setup.family
    encoders = family.text_encoders
    adapter.save(path, family.denoiser, origin, prefix=family.prefix, text_encoders=encoders)
    if setup.config.export == "kohya":
        adapter.save(
            path.parent / "kohya" / path.name,
            family.denoiser,
            origin,
            prefix=family.prefix,
            text_encoders=encoders,
            dialect="kohya",
        )


def _provenance(setup: Setup, job: Job, losses: list[float], same: dict[str, Any]) -> Provenance:
    config, base = setup.config, setup.base
    tenth = max(1, len(losses) // 10)
    return Provenance(
        base=base.name,
        base_digest=base.digest,
        family=base.family,
        resolution=base.resolution,
        classes=list(job.classes),
        all_classes=list(job.photos.classes),
        prompt=config.prompt,
        rank=config.rank,
        alpha=config.alpha or config.rank,
        method=config.method,
        targets=list(config.targets),
        text_encoders=list(setup.family.text_encoders),
        steps=config.steps,
        seed=config.seed,
        losses={"first": float(np.mean(losses[:tenth])), "last": float(np.mean(losses[-tenth:]))},
        trained_on=sorted(job.photos.hashes()),
        data=job.photos.name,
        options=same,
        versions=run.versions(),
        commit=run.git_commit(),
    )
