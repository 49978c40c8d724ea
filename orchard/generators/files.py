"""The file of a trained generator: weights, and a header that says what it makes and what it has seen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from orchard import software
from orchard.errors import UserError
from orchard.files import atomic, checked_json, checked_safetensors

if TYPE_CHECKING:
    import torch

    from orchard.generators.decoder import Decoder

Kind = Literal["gan", "vae"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Size = Literal[32, 64, 128]
SIZES: tuple[Size, ...] = get_args(Size)
SCHEMA = 1
HEADER = "orchard"
NO_SCHEDULER = "none"
"""What rows of a synthetic set have for the scheduler that a GAN or VAE does not need."""
FOLDER = Path("generators")
"""Where they are written unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the header says: enough to sample, to train it again, and to see what it has seen."""

    kind: Kind
    classes: tuple[str, ...]
    """Classes it was trained on, in the order of the network."""
    all_classes: tuple[str, ...]
    """The whole class list of the real set."""
    size: Size
    """Side of its images in pixels."""
    width: int
    latent: int
    steps: int
    seed: int
    losses: dict[str, float]
    data: str
    """The set it was trained on, by name."""
    trained_on: tuple[str, ...]
    """SHA-256 of every real image it was trained on."""
    options: dict[str, Any] = field(default_factory=dict)
    """Everything that the weights depend on."""
    versions: dict[str, str] = field(default_factory=software.versions)
    commit: str | None = field(default_factory=software.commit)
    schema: int = SCHEMA


def save(path: Path, network: Decoder, record: Record) -> None:
    """Write ``network`` and ``record`` under ``path``, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {"format": "pt", HEADER: json.dumps(asdict(record), sort_keys=True, allow_nan=False)}
    with atomic.whole_file(path) as aside:
        save_file(tensors, aside, metadata=metadata)


def find(name: str, folder: Path = FOLDER) -> Path:
    """A generator's file by path, or by bare name here and then in ``generators/``.

    Raises:
        UserError: there is none.
    """
    choices = [Path(name).expanduser()]
    if len(choices[0].parts) == 1:
        choices.append(folder / name)
    found = next((path for path in choices if path.is_file()), None)
    if found is None:
        tried = " nor ".join(map(str, choices))
        raise UserError(
            f"--generator {name}: no file {tried}; give a file of finetune/train_gan.py or train_vae.py, "
            "without a weight"
        )
    return found


def read(path: Path) -> Record:
    """The header of a generator's file; no weights.

    Raises:
        UserError: not one that this toolkit wrote, or of a newer schema.
    """
    try:
        with checked_safetensors.opened(path) as file:
            text = (file.metadata() or {}).get(HEADER, "")
        found = checked_json.versioned(Record, text, SCHEMA)
        checked_json.require_distinct(found.all_classes)
        checked_json.require_distinct(found.classes)
        if not set(found.classes) <= set(found.all_classes):
            raise ValueError(f"its classes {list(found.classes)} are not of {list(found.all_classes)}")
        for name, most in (("width", 1024), ("latent", 4096)):
            if not 0 < getattr(found, name) <= most:
                raise ValueError(f"{name} is out of range")
        return found
    except ValueError as error:
        raise UserError(
            f"--generator {path}: not a file of finetune/train_gan.py or train_vae.py ({error})"
        ) from None


def load(path: Path, record: Record, device: torch.device) -> Decoder:
    """The network in evaluation mode on ``device``.

    Raises:
        UserError: the weights are not those that the header names, or not finite.
    """
    import torch

    from orchard.generators.decoder import Decoder

    # Without memory of its own until the file's shapes are known to be the header's.
    with torch.device("meta"):
        network = Decoder(
            classes=len(record.classes), size=record.size, width=record.width, latent=record.latent
        )
    try:
        network.load_state_dict(checked_safetensors.load(path), assign=True)
    except (RuntimeError, ValueError) as error:
        reason = str(error).replace("\n", " ")[:120]
        raise UserError(f"--generator {path}: its weights do not fit its header ({reason})") from None
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise UserError(f"--generator {path}: its weights hold NaN or infinity; train it again")
    return network.to(device).eval().requires_grad_(False)
