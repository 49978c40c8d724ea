"""Where an adapter came from, as its file's header says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from orchard.adapters.contexts import Bank, require_valid
from orchard.adapters.privacy import Privacy
from orchard.errors import UserError
from orchard.files import checked_json, checked_safetensors

SCHEMA = 5
HEADER = "orchard"
NAME = "orchard.json"
"""The same of a pipeline whose weights were all trained, in its folder."""
FULL, INVERSION = "full", "textual_inversion"
"""Methods that are no adapters in the layers: all weights, and words alone."""
WORD = re.compile(r"<[\w-]+>")


class Embedding(TypedDict):
    """A word of its own that stands for a class in prompts."""

    word: str
    sha256: str
    """Of the file with its vectors; empty where they are in the adapter's own."""


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
    """SHA-256 of every real image it was trained on; see `ledger`."""
    data: str
    method: str = "lora"
    """One of `orchard.adapters.tensor_roles.Method`, `FULL` or `INVERSION`."""
    targets: list[str] = field(default_factory=lambda: ["attention"])
    """Layers with an adapter, as the options named them."""
    text_encoders: list[str] = field(default_factory=list)
    """Text encoders trained too, by their places in the pipeline."""
    contexts: dict[str, Bank] = field(default_factory=dict)
    """What the captions say besides the class, by class; empty unless trained with contexts."""
    embeddings: dict[str, Embedding] = field(default_factory=dict)
    """What stands for a class in prompts, where that is not its name."""
    privacy: Privacy | None = None
    """What it promises to each photo; then neither losses nor what would tell of single photos is said."""
    options: dict[str, Any] = field(default_factory=dict)
    """Everything else that the weights depend on."""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    schema: int = SCHEMA

    @property
    def inpaints(self) -> bool:
        """Whether the base is for inpainting alone: such adapters are trained under masks."""
        return "masks" in self.options

    @property
    def ledger(self) -> list[str] | None:
        """``trained_on``; None where it does not say all, since that would tell who was among the photos."""
        return None if self.privacy else self.trained_on

    def word(self, label: str) -> str:
        """What stands for a class in prompts."""
        return self.embeddings[label]["word"] if label in self.embeddings else label


def of_header(path: Path, header: Mapping[str, str]) -> Provenance | None:
    """The provenance in the header of the file at ``path``; None for a file of another tool.

    Raises:
        UserError: written by a newer version, not to be read, or of a GAN or VAE.
    """
    if HEADER not in header:
        return None
    if kind := re.search(r'"kind": "(gan|vae)"', header[HEADER]):
        raise UserError(f"--lora {path}: a {kind[1].upper()}; give it to --generator")
    return _parsed(path, header[HEADER])


def of_folder(folder: Path) -> Provenance | None:
    """The provenance of a pipeline whose weights were all trained; None for any other.

    Raises:
        UserError: as for `of_header`.
    """
    try:
        return _parsed(folder, checked_json.read(folder / NAME))
    except OSError:
        return None
    except ValueError as error:
        raise UserError(f"{folder / NAME}: cannot be read ({error})") from None


def of_path(path: Path) -> Provenance | None:
    """The provenance of whatever finetune has written to ``path``; None where there is nothing of it.

    Raises:
        UserError: as for `of_header`, or a file that is none of safetensors.
    """
    if not path.is_file():
        return of_folder(path)
    try:
        with checked_safetensors.opened(path) as file:
            return of_header(path, file.metadata() or {})
    except ValueError as error:
        raise UserError(f"--lora {path}: not a safetensors file ({error})") from None


def _parsed(path: Path, text: str | bytes) -> Provenance:
    try:
        found = checked_json.versioned(Provenance, text, SCHEMA)
        if not found.classes or not set(found.classes) <= set(found.all_classes):
            raise ValueError(f"its classes {found.classes} are not of {found.all_classes}")
        checked_json.require_distinct(found.all_classes)
        if not found.contexts.keys() <= set(found.classes):
            raise ValueError(f"it has contexts of other classes than {found.classes}")
        require_valid(found.contexts)
        _require_words(found)
        return found
    except ValueError as error:
        raise UserError(f"--lora {path}: its `{HEADER}` header cannot be read ({error})") from None


def _require_words(found: Provenance) -> None:
    words = [one["word"] for one in found.embeddings.values()]
    if not found.embeddings.keys() <= set(found.classes) or len(set(words)) != len(words):
        raise ValueError(f"its words {words} are not one for each of {found.classes}")
    if strange := [word for word in words if not WORD.fullmatch(word)]:
        raise ValueError(f"{checked_json.shown(strange[0])} is no word such as <apple>")
