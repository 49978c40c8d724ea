"""Exact resume: everything a stopped run needs to continue as if it had never stopped.

Batches depend on (seed, step) alone and the learning rate on the step, so a checkpoint holds the weights,
their moving average, the optimiser, the loss scaler and the random generators, which dropout inside a base
may use.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from orchard import errors
from orchard.errors import UserError
from orchard.files import atomic, checked_json, checked_safetensors

FOLDER = "checkpoints"
STATE, RANDOM, MANIFEST = "state.safetensors", "random-{process}.safetensors", "checkpoint.json"
PREFIX = "step-"
SHAPE = "shape"
"""Header key of a state file: the nesting of its tensors."""
GONE = {"logit_mean": 0.0, "logit_std": 1.0, "mode_scale": 1.29}
"""Options of earlier versions, at the value that means what there is without them."""
ADDED = {
    "shift": 1.0,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": None,
    "lr_num_cycles": 1,
    "weight_decay": 0.01,
    "betas": [0.9, 0.999],
    "max_grad_norm": 1.0,
    "balance": False,
    "trigger": "",
    "caption_dropout": 0.0,
    "clip_skip": 0,
    "quantize": "none",
    "rank_pattern": [],
    "use_rslora": False,
    "init_lora_weights": "gaussian",
    "num_vectors": 0,
    "loraplus_lr_ratio": 1.0,
    "dp_epsilon": 0.0,
    "dp_delta": 0.0,
}
"""Options that earlier versions lacked, at the value that they trained with."""
FIELDS: Mapping[str, Any] = {"losses": list[float], "identity": dict[str, Any], "files": dict[str, str]}


class Learner(Protocol):
    """What is trained: it gives all that training changes, and takes it back."""

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs; called by all processes."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    step: int
    """Optimiser steps done."""
    losses: list[float]
    """One per step done."""
    identity: dict[str, Any]
    """What must be the same for an exact resume."""


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
    save_state(aside / RANDOM.format(process=accelerator.process_index), _random_state())
    state = learner.state()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
        save_state(aside / STATE, {**state, "scaler": scaler})
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


def changes(earlier: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """What an adapter depends on that differs between two runs, each of any version; empty if nothing."""
    return errors.differences(_current(earlier), _current(identity))


def _current(identity: Mapping[str, Any]) -> dict[str, Any]:
    return ADDED | {name: value for name, value in identity.items() if (name, value) not in GONE.items()}


def require_same_options(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` naming every option whose change would break exactness."""
    changed = changes(checkpoint.identity, json.loads(json.dumps(dict(identity))))
    if changed:
        raise UserError(
            f"--resume: {checkpoint.folder} was made with {changed}; resume with the same options, or "
            "start over in another --output"
        )


def begin(folder: Path, checkpoint: Checkpoint | None, accelerator: Accelerator, learner: Learner) -> None:
    """Let a job begin at its checkpoint, or without one where earlier ones go; called by all processes.

    Raises:
        UserError: as for `load`.
    """
    if accelerator.is_main_process:
        tidy(folder)
    if checkpoint:
        load(checkpoint, accelerator, learner)
    elif accelerator.is_main_process:
        clear(folder)


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
        _restore(load_state(checkpoint.folder / STATE), load_state(random), accelerator, learner)
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


def save_state(path: Path, value: Any) -> None:
    """Write nested state as safetensors, which run no code when they are read; whole or not at all.

    Tensors may be in any nesting of dicts, lists, tuples and plain values.
    """
    tensors: dict[str, torch.Tensor] = {}
    shape = _packed(value, tensors)
    with atomic.whole_file(path) as aside:
        save_file(tensors, aside, metadata={SHAPE: json.dumps(shape)})


def load_state(path: Path) -> Any:
    """What `save_state` wrote, tensors on the CPU.

    Raises:
        ValueError: it is something else.
    """
    try:
        with checked_safetensors.opened(path) as file:
            return _unpacked(
                checked_json.parse((file.metadata() or {})[SHAPE], finite=False), file.get_tensor
            )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path.name} holds no state ({error})") from None


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` in JSON's types, each container and tensor as a pair of its kind and its contents."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return ["tensor", name]
    if isinstance(value, dict):
        # JSON's keys are strings, an optimiser's are numbers.
        return ["dict", [[key, _packed(item, tensors)] for key, item in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [_packed(item, tensors) for item in value]]
    assert value is None or isinstance(value, bool | int | float | str), value
    return ["plain", value]


def _unpacked(packed: Any, tensor: Any) -> Any:
    kind, content = packed
    if kind == "tensor":
        return tensor(content)
    if kind == "dict":
        return {key: _unpacked(item, tensor) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_unpacked(item, tensor) for item in content]
        return items if kind == "list" else tuple(items)
    return content
