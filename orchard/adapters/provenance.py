"""Where an adapter came from, as its file's header says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchard.adapters.contexts import Bank, require_valid
from orchard.errors import UserError
from orchard.files import checked_json

SCHEMA = 3
HEADER = "orchard"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the header says: enough to make the adapter again and to see what it has seen."""

    base: str
    base_digest: str
    family: str
    resolution: int
    classes: list[str]
    """Classes it was trained on."""
    all_classes: list[str]
    """The whole class list of the real set."""
    prompt: str
    """Template with ``{label}`` in it."""
    rank: int
    alpha: float
    steps: int
    seed: int
    losses: dict[str, float]
    trained_on: list[str]
    """SHA-256 of every real image it was trained on."""
    data: str
    method: str = "lora"
    """One of `orchard.adapters.tensor_roles.Method`."""
    targets: list[str] = field(default_factory=lambda: ["attention"])
    """Layers with an adapter, as the options named them."""
    text_encoders: list[str] = field(default_factory=list)
    """Text encoders trained too, by their places in the pipeline."""
    contexts: dict[str, Bank] = field(default_factory=dict)
    """What the captions say besides the class, by class; empty unless trained with contexts."""
    options: dict[str, Any] = field(default_factory=dict)
    """Everything else that the weights depend on."""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    schema: int = SCHEMA

    @property
    def inpaints(self) -> bool:
        """Whether the base is for inpainting alone: such adapters are trained under masks."""
        return "masks" in self.options


def of_header(path: Path, header: Mapping[str, str]) -> Provenance | None:
    """The provenance in the header of the file at ``path``; None for a file of another tool.

    Raises:
        UserError: written by a newer version, or not to be read.
    """
    if HEADER not in header:
        return None
    try:
        found = checked_json.versioned(Provenance, header[HEADER], SCHEMA)
        if not found.classes or not set(found.classes) <= set(found.all_classes):
            raise ValueError(f"its classes {found.classes} are not of {found.all_classes}")
        checked_json.require_distinct(found.all_classes)
        if not found.contexts.keys() <= set(found.classes):
            raise ValueError(f"it has contexts of other classes than {found.classes}")
        require_valid(found.contexts)
        return found
    except ValueError as error:
        raise UserError(f"--lora {path}: its `{HEADER}` header cannot be read ({error})") from None
