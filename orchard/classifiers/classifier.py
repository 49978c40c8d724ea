"""The saved classifier: weights, and a header that says what it knows and what it has seen."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from orchard import software
from orchard.classifiers.networks import build, without_auxiliary
from orchard.errors import UserError
from orchard.files import atomic, checked_json, checked_safetensors, size_limits

SCHEMA = 1
HEADER = "orchard"
FILE = "model.safetensors"
LARGEST = {"size": size_limits.SIDE, "through": size_limits.SIDE, "seed": 2**32}
"""What a record's values are at most; the seed is one less."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the header says: enough to use the classifier, to make it again, to see what it has seen."""

    model: str
    """Name that `networks.build` takes."""
    classes: tuple[str, ...]
    """Names in the order of the outputs."""
    size: int
    """Pixels of the input."""
    through: int | None
    """Smaller side in pixels that every image goes by first, if any."""
    seed: int
    steps: int
    data: str
    """The set it was trained on, by name."""
    trained_on: tuple[str, ...]
    """SHA-256 of every real image that it, or the generator of its images, was trained or validated on."""
    validation_accuracy: float | None = None
    versions: dict[str, str] = field(default_factory=software.versions)
    commit: str | None = field(default_factory=software.commit)
    schema: int = SCHEMA


def save(path: Path, model: nn.Module, record: Record) -> None:
    """Write ``model`` and ``record`` under ``path``, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    metadata = {"format": "pt", HEADER: json.dumps(asdict(record), sort_keys=True, allow_nan=False)}
    with atomic.whole_file(path) as aside:
        save_file(tensors, aside, metadata=metadata)


def read(path: Path) -> Record:
    """The header of a saved classifier (the file, or the folder it lies in); no weights.

    Raises:
        UserError: no such file, not a classifier of ours, or one of a newer schema.
    """
    path = find(path)
    text = _header(path)
    if text is None:
        raise UserError(f"{path}: no `{HEADER}` header, so not a classifier that python -m classify wrote")
    return _record(path, text)


def seen_by(pretrained: str) -> frozenset[str]:
    """SHA-256 of the real images behind ``--pretrained``, where one of our classifiers is named there.

    Weights of other origin have seen other images than this project's sets, as far as anyone knows.
    """
    path = Path(pretrained).expanduser()
    if not pretrained or not (path.is_dir() or path.is_file()):
        return frozenset()
    if path.is_dir() and not (path / FILE).is_file():
        return frozenset()
    return frozenset(read(path).trained_on) if _header(find(path)) else frozenset()


def classes_of(path: Path) -> tuple[str, ...]:
    """What the outputs of the weights in a file stand for, in order; empty where no classifier of ours is."""
    text = _header(path)
    return _record(path, text).classes if text else ()


def find(path: Path) -> Path:
    """``path``, or the classifier in it when it is a folder; raise `UserError` when there is none."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such classifier; python -m classify writes one")
    return file


def _header(path: Path) -> str | None:
    try:
        with checked_safetensors.opened(path) as file:
            return (file.metadata() or {}).get(HEADER)
    except ValueError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); train it again") from None


def _record(path: Path, text: str) -> Record:
    try:
        found = checked_json.versioned(Record, text, SCHEMA)
        checked_json.require_distinct(found.classes)
        for name, value in (("size", found.size), ("through", found.through or 1), ("seed", found.seed + 1)):
            if not 0 < value <= LARGEST[name]:
                raise ValueError(f"{name} is out of range")
        return found
    except ValueError as error:
        raise UserError(f"{path}: its `{HEADER}` header is not a classifier's ({error})") from None


def load(path: Path, device: torch.device | None = None) -> tuple[nn.Module, Record]:
    """A saved classifier in evaluation mode on ``device`` (default: CPU), and its record.

    Raises:
        UserError: as `read`, or the weights do not belong to the network that the header names.
    """
    record, file = read(path), find(path)
    model = build(record.model, len(record.classes), record.size, record.seed)
    try:
        model.load_state_dict(without_auxiliary(checked_safetensors.load(file)))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{file}: its weights do not fit {record.model} ({str(error)[:120]})") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise UserError(f"{file}: its weights hold NaN or infinity; train it again")
    return model.to(device or torch.device("cpu")).eval(), record


def require_classes(record: Record, classes: Sequence[str]) -> None:
    """Raise `UserError` naming every class that the classifier does not know."""
    unknown = sorted(set(classes) - set(record.classes))
    if unknown:
        raise UserError(
            f"class {', '.join(unknown)} is unknown to the classifier, which has "
            f"{', '.join(record.classes)}; remove it, or train with it"
        )
