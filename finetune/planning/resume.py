"""Resuming a stopped run: finished adapters, checkpoints to resume from, jobs that have not begun."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from finetune.config import TrainLora
from finetune.context import Job
from finetune.data import masks
from finetune.generators.config import TrainGenerator
from finetune.training import checkpoints
from finetune.training.checkpoints import Checkpoint
from orchard.adapters import adapter
from orchard.bases.bases import Base
from orchard.errors import UserError
from orchard.generators import files
from orchard.images.images import DECODING, sha256

LATEST = "latest"
BY_CONTENT = frozenset(
    (
        *("config", "data", "base", "classes", "joint", "captions", "captioner", "prior_data"),
        "compile",
    )
)
"""Options that `identity` replaces by the contents of what they name, or by what they make of a run."""
WITHOUT_EFFECT = frozenset(
    (
        *("dry_run", "output", "cache", "save_every", "keep", "resume", "export", "push_to_hub", "private"),
        *("log_with", "preview_every", "sheets", "gradient_checkpointing"),
    )
)
"""Options that do not change the adapter."""


OF_PHOTOS = frozenset(("photos", "boxes"))
"""Digests in an identity that tell whoever knows all photos but one whether that one is among them."""


def identity(
    config: TrainLora | TrainGenerator, base: Base | None, job: Job, arithmetic: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything an adapter depends on; equal values give equal adapters on one machine.

    ``arithmetic`` as `finetune.planning.accelerators.arithmetic_of`.
    """
    names = [f.name for f in fields(config) if f.name not in BY_CONTENT | WITHOUT_EFFECT]
    values = {name: getattr(config, name) for name in names}
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    photos = "\n".join(sorted(f"{photo.sha256}:{photo.label}:{photo.text}" for photo in job.photos.photos))
    masked = base is not None and base.inpaints
    return options | {
        **arithmetic,
        **({"noise_multiplier": job.privacy["noise_multiplier"]} if job.privacy else {}),
        **_boxes(config, job, masked=masked),
        **({"masks": list(masks.KINDS)} if masked else {}),
        **({"prior_photos": job.prior_photos.digest()} if job.prior_photos else {}),
        "classes": list(job.classes),
        **({"base_digest": base.digest} if base else {}),
        "photos": sha256(photos.encode()),
        "decoding": DECODING,
    }


def published(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that an adapter's header says: with privacy, nothing of the photos."""
    private = bool(identity.get("dp_epsilon"))
    return {name: value for name, value in identity.items() if not (private and name in OF_PHOTOS)}


def _boxes(config: TrainLora | TrainGenerator, job: Job, *, masked: bool) -> dict[str, str]:
    """The boxes that crops keep whole or masks cover, where there are any."""
    digest = job.photos.boxes_digest() if config.fit == "crop" or masked else ""
    return {"boxes": digest} if digest else {}


def find(config: TrainLora | TrainGenerator, jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """The jobs with their progress so far, and one line about each broken checkpoint that was skipped.

    Raises:
        UserError: without ``--resume``, an unfinished run that would be lost; with it, nothing to resume, a
            named checkpoint that is broken or of another adapter, or options that differ.
    """
    if not config.resume:
        _require_nothing_unfinished(config.output, jobs)
        return list(jobs), []
    named = _named(config.resume, jobs) if config.resume != LATEST else None
    found: list[Job] = []
    broken: list[str] = []
    for job in jobs:
        if named and named.folder.parent.name == job.name:
            found.append(replace(job, checkpoint=named, finished=False))
        elif _is_finished(job.path(config.output), job.identity):
            found.append(replace(job, checkpoint=None, finished=True))
        else:
            newest, lines = checkpoints.latest(checkpoints.folder_of(config.output, job.name))
            broken += lines
            found.append(replace(job, checkpoint=newest, finished=False))
    for job in found:
        if job.checkpoint:
            checkpoints.require_same_options(job.checkpoint, job.identity)
    if not any(job.finished or job.checkpoint for job in found):
        skipped = f" ({'; '.join(broken)})" if broken else ""
        raise UserError(
            f"--resume {config.resume}: no whole checkpoint in {config.output / checkpoints.FOLDER}"
            f"{skipped} and nothing finished of this run; start without --resume"
        )
    return found, broken


def _is_finished(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether ``path`` is a finished adapter, pipeline or generator of this very run."""
    made_with = _options(path) if path.exists() else None
    return made_with is not None and not checkpoints.changes(made_with, published(identity))


def _options(path: Path) -> Mapping[str, Any] | None:
    """What the weights at a path of ours depend on."""
    with suppress(UserError):
        found = adapter.origin(path)
        return found.options if found else None
    with suppress(UserError):
        return files.read(path).options
    return None


def _require_nothing_unfinished(output: Path, jobs: Sequence[Job]) -> None:
    for job in jobs:
        folder = checkpoints.folder_of(output, job.name)
        found, _ = checkpoints.latest(folder)
        if found is not None and not _is_finished(job.path(output), found.identity):
            raise UserError(
                f"{folder} holds an unfinished run ({found.step} steps); resume it with --resume latest, or "
                "delete that folder to start over"
            )


def _named(resume: str, jobs: Sequence[Job]) -> Checkpoint:
    folder = Path(resume).expanduser()
    if not folder.is_dir():
        raise UserError(f"--resume {resume}: no such folder; give `latest` or a checkpoint folder")
    names = [job.name for job in jobs]
    if folder.parent.name not in names:
        raise UserError(
            f"--resume {resume}: a checkpoint of {folder.parent.name}, not one of this run's adapters "
            f"({', '.join(names)})"
        )
    return checkpoints.read(folder)
