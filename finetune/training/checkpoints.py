"""Exact resume: everything a stopped run needs to go on as if it had never stopped.

Batches depend on (seed, step) alone and the learning rate on the step, so a checkpoint holds the weights,
their moving average, the optimiser, the loss scaler and the random generators, which dropout inside a base
may use.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from finetune.training import state_files
from finetune.training.learner import Learner
from orchard import errors
from orchard.errors import UserError
from orchard.files import atomic, checked_json

FOLDER = "checkpoints"
STATE, RANDOM, MANIFEST = "state.safetensors", "random-{process}.safetensors", "checkpoint.json"
PREFIX = "step-"
FIELDS: Mapping[str, Any] = {"losses": list[float], "identity": dict[str, Any], "files": dict[str, str]}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    step: int
    """Optimiser steps done."""
    losses: list[float]
    """One a step done."""
    identity: dict[str, Any]
    """What must be the same for a run to go on exactly."""


def folder_of(output: Path, job: str) -> Path:
    """Where the checkpoints of one adapter lie."""
    return output / FOLDER / job


def save(
    folder: Path,
    accelerator: Accelerator,
    learner: Learner,
    losses: Sequence[float],
    identity: Mapping[str, Any],
) -> Path:
    """Write a checkpoint after ``len(losses)`` steps; it gets its final name once every part is whole.

    Called by every process; the main one writes the weights and publishes.

    Raises:
        WriteError: it cannot be written; nothing of it stays.
    """
    final = folder / f"{PREFIX}{len(losses):06d}"
    content = {"losses": list(losses), "identity": dict(identity)}
    try:
        _write(final, accelerator, learner, content)
    except BaseException:
        shutil.rmtree(_aside(final), ignore_errors=True)
        raise
    return final


def _write(final: Path, accelerator: Accelerator, learner: Learner, content: Mapping[str, Any]) -> None:
    """Write the parts aside, then give them their name."""
    aside = _aside(final)
    if accelerator.is_main_process:
        with atomic.written(final):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    state_files.save(aside / RANDOM.format(process=accelerator.process_index), _random_state())
    state = learner.state()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        state_files.save(aside / STATE, {**state, "scaler": scaler})
        files = {path.name: atomic.file_hash(path) for path in sorted(aside.iterdir())}
        atomic.write_json(aside / MANIFEST, {**content, "files": files})
        with atomic.written(final):
            shutil.rmtree(final, ignore_errors=True)
            aside.replace(final)
    accelerator.wait_for_everyone()


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def prune(folder: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest checkpoints; 0 keeps all."""
    for old in _numbered(folder)[:-keep] if keep else []:
        _remove(old)


def clear(folder: Path) -> None:
    """Delete the checkpoints of an earlier run, which would be taken for this run's."""
    for old in _numbered(folder):
        _remove(old)


def tidy(folder: Path) -> None:
    """Delete what a killed run had not finished writing, or deleting."""
    with atomic.written(folder):
        for left in folder.glob(str(_aside(Path(f"{PREFIX}*")))):
            shutil.rmtree(left)


def _aside(checkpoint: Path) -> Path:
    """Where a checkpoint lies while it is not whole."""
    return checkpoint.with_name(f".{checkpoint.name}.part")


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it loses its name before it loses a file."""
    aside = _aside(checkpoint)
    with atomic.written(checkpoint):
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.replace(aside)
        shutil.rmtree(aside)


def _numbered(folder: Path) -> list[Path]:
    """Checkpoint folders by step number, whole or not."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint in ``folder``, and one line about each broken one that is newer."""
    broken: list[str] = []
    for path in reversed(_numbered(folder)):
        try:
            return read(path), broken
        except UserError as error:
            broken.append(str(error))
    return None, broken


def read(folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``, every file of it checked against its hash.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        value = checked_json.table(FIELDS, checked_json.parse(checked_json.read(folder / MANIFEST)))
        losses, identity, files = value["losses"], value["identity"], value["files"]
    except (OSError, ValueError):
        raise UserError(f"checkpoint {folder} is broken: no readable {MANIFEST}") from None
    for name in {STATE, RANDOM.format(process=0)} - files.keys():
        raise UserError(f"checkpoint {folder} is broken: {MANIFEST} does not name {name}")
    for name, digest in files.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise UserError(f"checkpoint {folder} is broken: {name} is missing")
        if atomic.file_hash(path) != digest:
            raise UserError(f"checkpoint {folder} is broken: {name} is damaged")
    return Checkpoint(folder=folder, step=len(losses), losses=losses, identity=identity)


def require_same(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` naming every option whose change would break exactness."""
    changed = errors.differences(checkpoint.identity, json.loads(json.dumps(dict(identity))))
    if changed:
        raise UserError(
            f"--resume: {checkpoint.folder} was made with {changed}; resume with the same options, or "
            "start anew in another --output"
        )


def load(checkpoint: Checkpoint, accelerator: Accelerator, learner: Learner) -> None:
    """Put weights, their average, optimiser, scaler and random generators back as they were.

    Raises:
        UserError: the checkpoint was made by another number of processes.
    """
    random = checkpoint.folder / RANDOM.format(process=accelerator.process_index)
    there = len(list(checkpoint.folder.glob(RANDOM.format(process="*"))))
    if there != accelerator.num_processes:
        raise UserError(
            f"--resume: {checkpoint.folder} was made by {there} processes, this run has "
            f"{accelerator.num_processes}; start as many"
        )
    try:
        _restore(state_files.load(checkpoint.folder / STATE), state_files.load(random), accelerator, learner)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"--resume: {checkpoint.folder} holds no state of this run ({reason}); delete that folder"
        ) from None


def _restore(state: Any, generators: Any, accelerator: Accelerator, learner: Learner) -> None:
    learner.restore(state)
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(generators["cpu"])
    if generators["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(generators["cuda"])
