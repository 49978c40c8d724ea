"""One adapter: train it from the start or from a checkpoint, save it."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.config import TrainLora
from finetune.context import Job, Setup
from finetune.data.training_data import Material
from finetune.models import lora, trained_text_encoders
from finetune.outputs.monitor import Watch
from finetune.outputs.snippets import KOHYA
from finetune.planning import devices
from finetune.training import checkpoints, sharded
from finetune.training import learner as learners
from finetune.training.checkpoints import Checkpoint
from finetune.training.learner import Learner
from finetune.training.loop import train_steps
from orchard import errors, software
from orchard.adapters import adapter
from orchard.adapters.provenance import Provenance
from orchard.bases.bases import Base
from orchard.errors import UserError
from orchard.images.images import DECODING, sha256
from orchard.images.splits import stable_hash

SOURCES = frozenset(("config", "data", "base", "classes", "joint"))
OUTCOMES = frozenset(
    (
        *("dry_run", "output", "cache", "save_every", "keep", "resume", "export", "push_to_hub", "private"),
        *("log_with", "preview_every", "sheets", "gradient_checkpointing"),
    )
)
"""Options that do not change the adapter; what `SOURCES` name is in `identity` by its contents."""


class StopError(Exception):
    """A signal ended the run; says what was saved first, and holds the exit code."""

    def __init__(self, saved: Path | None, code: int) -> None:
        super().__init__(
            f"saved {saved}; go on with --resume latest"
            if saved
            else "DeepSpeed cannot save a checkpoint to go on from, so start the run anew"
        )
        self.code = code


def identity(config: TrainLora, base: Base, job: Job, arithmetic: Mapping[str, str]) -> dict[str, Any]:
    """What an adapter depends on; equal ones give equal adapters on one machine.

    ``arithmetic`` as `finetune.planning.devices.arithmetic_of`.
    """
    values = ((f.name, getattr(config, f.name)) for f in fields(config) if f.name not in SOURCES | OUTCOMES)
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in values}
    photos = "\n".join(sorted(f"{photo.sha256}:{photo.label}:{photo.text}" for photo in job.photos.photos))
    return options | {
        **arithmetic,
        "classes": list(job.classes),
        "base_digest": base.digest,
        "photos": sha256(photos.encode()),
        "decoding": DECODING,
    }


def is_done(path: Path, same: dict[str, Any]) -> bool:
    """Whether ``path`` is a finished adapter of this very run."""
    if not path.is_file():
        return False
    try:
        found = adapter.read(path).provenance
    except UserError:
        return False
    return found is not None and not errors.differences(found.options, same)


def train(
    setup: Setup,
    job: Job,
    material: Material,
    same: dict[str, Any],
    start: Checkpoint | None,
    advance: Callable[[float, str], None],
) -> Path:
    """Train ``job`` on its ``material``, from ``start`` where there is one, and write its adapter.

    Raises:
        UserError: the loss is not finite, or something cannot be written.
        StopError: a signal came; a checkpoint was written, or the adapter where it was trained already.
    """
    watch = Watch(setup, job, material, done=start.step if start else 0)
    device = setup.accelerator.device
    with setup.interrupt, torch.random.fork_rng([device] if device.type == "cuda" else []):
        path = _train(setup, job, material, same, start, watch, advance)
        if code := setup.interrupt.agreed(setup.accelerator):
            raise StopError(path, code)
    return path


def _train(
    setup: Setup,
    job: Job,
    material: Material,
    same: dict[str, Any],
    start: Checkpoint | None,
    watch: Watch,
    advance: Callable[[float, str], None],
) -> Path:
    """As `train`, where a signal is heard between two steps alone."""
    config, family = setup.config, setup.family
    losses = list(start.losses) if start else []
    learner = _learner(setup, job, start)
    context = (material.photos, learner, material.names, config, setup.accelerator)
    try:
        with trained_text_encoders.at(family.frozen_text_encoders, trained_text_encoders.HOST):
            for step in train_steps(family, *context, prior=material.prior, start=len(losses)):
                losses.append(step.loss)
                watch.step(learner, step)
                advance(1, f"loss {np.mean(losses[-50:]):.4f}")
                _keep(setup, job, learner, losses, same)
    except FloatingPointError as error:
        raise UserError(f"{job.name}: {error}; use a lower --learning_rate or --precision fp32") from None
    watch.finish()
    path = job.path(config.output)
    for model in family.models.values():
        sharded.make_whole(model)
    if setup.accelerator.is_main_process:
        _save(setup, path, _provenance(setup, job, losses, same))
    for model in family.models.values():
        lora.remove(model)
    setup.accelerator.wait_for_everyone()
    return path


def _learner(setup: Setup, job: Job, start: Checkpoint | None) -> Learner:
    """A fresh adapter in the base, or that of a checkpoint.

    Nothing of the adapter before it counts: a run that is started again at this one ends in the same bits.
    """
    config, family = setup.config, setup.family
    torch.manual_seed(stable_hash("training", config.seed, job.name, setup.accelerator.process_index))
    if setup.scaler:
        setup.accelerator.scaler.load_state_dict(setup.scaler)
    groups = lora.groups(lora.inject_all(family, setup.targets, config), family, config)
    learner = learners.prepare(family, groups, config, setup.accelerator)
    folder = checkpoints.folder_of(config.output, job.name)
    if setup.accelerator.is_main_process:
        checkpoints.tidy(folder)
    if start is not None:
        checkpoints.load(start, setup.accelerator, learner)
    elif setup.accelerator.is_main_process:
        checkpoints.clear(folder)
    return learner


def _keep(setup: Setup, job: Job, learner: Learner, losses: list[float], same: dict[str, Any]) -> None:
    """Save a checkpoint where one is due or a signal came; after a signal raise `StopError`."""
    config, accelerator = setup.config, setup.accelerator
    code = setup.interrupt.agreed(accelerator)
    due = config.save_every and len(losses) % config.save_every == 0
    if len(losses) == config.steps or not (code or due):
        return
    if not devices.can_save(accelerator):
        raise StopError(None, code)
    folder = checkpoints.folder_of(config.output, job.name)
    path = checkpoints.save(folder, accelerator, learner, losses, same)
    if accelerator.is_main_process:
        checkpoints.prune(folder, config.keep)
    if code:
        raise StopError(path, code)


def _save(setup: Setup, path: Path, origin: Provenance) -> None:
    """Write the adapter, and in the folder ``kohya`` the same for other tools where that was asked for.

    The adapter comes last: once it is there, the job counts as finished.
    """
    family = setup.family
    encoders = family.text_encoders
    if setup.config.export == "kohya":
        adapter.save(
            path.parent / KOHYA / path.name,
            family.denoiser,
            origin,
            prefix=family.prefix,
            text_encoders=encoders,
            dialect="kohya",
        )
    adapter.save(path, family.denoiser, origin, prefix=family.prefix, text_encoders=encoders)


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
        versions=software.versions(),
        commit=software.commit(),
    )
