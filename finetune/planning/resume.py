"""What is left to do of a stopped run: finished adapters, checkpoints to go on from, jobs not begun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config import TrainLora
from finetune.context import Job
from finetune.trainer import is_done
from finetune.training import checkpoints
from finetune.training.checkpoints import Checkpoint
from orchard.errors import UserError

LATEST = "latest"


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What is known of each job by its name."""

    done: frozenset[str]
    starts: Mapping[str, Checkpoint]
    broken: Sequence[str]
    """One line about each broken checkpoint that was passed over."""


def find(config: TrainLora, jobs: Sequence[Job], same: Mapping[str, dict[str, Any]]) -> Rest:
    """Where each job goes on.

    Raises:
        UserError: without ``--resume``, an unfinished run that would be lost; with it, nothing to go on
            from, a named checkpoint that is broken or of another adapter, or options that differ.
    """
    if not config.resume:
        _require_nothing_unfinished(config, jobs)
        return Rest(done=frozenset(), starts={}, broken=())
    done = frozenset(job.name for job in jobs if is_done(job.path(config.output), same[job.name]))
    starts, broken = {}, []
    for job in jobs:
        if job.name in done:
            continue
        found, lines = checkpoints.latest(checkpoints.folder_of(config.output, job.name))
        broken += lines
        if found is not None:
            starts[job.name] = found
    if config.resume != LATEST:
        named = _named(config, jobs)
        starts[named.folder.parent.name] = named
    for name, checkpoint in starts.items():
        checkpoints.require_same(checkpoint, same[name])
    if not starts and not done:
        passed_over = f" ({'; '.join(broken)})" if broken else ""
        raise UserError(
            f"--resume {config.resume}: no whole checkpoint in {config.output / checkpoints.FOLDER}"
            f"{passed_over} and no finished adapter of this run; start without --resume"
        )
    return Rest(done=done - starts.keys(), starts=starts, broken=broken)


def _require_nothing_unfinished(config: TrainLora, jobs: Sequence[Job]) -> None:
    for job in jobs:
        folder = checkpoints.folder_of(config.output, job.name)
        found, _ = checkpoints.latest(folder)
        if found is not None and not is_done(job.path(config.output), found.identity):
            raise UserError(
                f"{folder} holds an unfinished run ({found.step} steps); go on with --resume latest, or "
                "delete that folder to start anew"
            )


def _named(config: TrainLora, jobs: Sequence[Job]) -> Checkpoint:
    folder = Path(config.resume).expanduser()
    if not folder.is_dir():
        raise UserError(f"--resume {config.resume}: no such folder; give `latest` or a checkpoint folder")
    names = [job.name for job in jobs]
    if folder.parent.name not in names:
        raise UserError(
            f"--resume {config.resume}: a checkpoint of {folder.parent.name}, not one of this run's adapters "
            f"({', '.join(names)})"
        )
    return checkpoints.read(folder)
