"""What audits found, in a file beside the adapters or the set that they attacked; cards quote it."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from orchard import cards
from orchard.errors import UserError
from orchard.files import atomic, checked_json
from orchard.images.images import sha256

FILE, CARD = "audited.json", "README.md"
START, END = "<!-- audit -->", "<!-- end of audit -->"
"""Around the section of a card, which is empty without an audit; a card without them is not changed."""
INTRODUCTION = (
    "Attacks that try to tell which real images were trained on (AUC 0.5 is chance, 1 gives all away), and "
    "how many samples are near copies; stronger attacks may find more."
)
Said = Mapping[str, Sequence[str]]
"""SHA-256 of an adapter or of a set -> what was found of it, in sentences."""


def digest(files: Sequence[Mapping[str, Any]]) -> str:
    """Of a set, by the files in its manifest."""
    return sha256("\n".join(sorted(f"{one['name']}:{one['sha256']}" for one in files)).encode())


def of_set(manifest: Mapping[str, Any]) -> set[str]:
    """What an audit may have been of where a set lies: the set, and the adapters that made it."""
    adapters = (one.get("lora", "") for one in manifest["arguments"].values())
    return {digest(manifest["files"]), *(part for one in adapters for part in one.split("+") if part)}


def write(folder: Path, said: Said, there: Set[str]) -> None:
    """Note what was ``said`` in a folder, beside what is known of others, and in its card what is ``there``.

    Raises:
        UserError: an earlier note cannot be read.
    """
    atomic.write_json(
        folder / FILE, {**_noted(folder), **{name: list(lines) for name, lines in said.items()}}
    )
    card = folder / CARD
    if card.is_file():
        before, start, rest = card.read_bytes().partition(START.encode())
        _, end, after = rest.partition(END.encode())
        if start and end:
            with atomic.whole_file(card) as aside:
                aside.write_bytes(before + "\n".join(section(folder, there)).encode() + after)


def found(folder: Path, there: Set[str]) -> list[str]:
    """What audits said of what is ``there`` now, by its SHA-256; nothing where that was not attacked."""
    return [line for name, lines in _noted(folder).items() if name in there for line in lines]


def section(folder: Path, there: Set[str]) -> list[str]:
    """Lines of the card of ``folder`` about what `found` has, between its marks."""
    said = [f"- {cards.plain(line)}" for line in found(folder, there)]
    return [START, *(["", "## Audit", "", INTRODUCTION, "", *said, ""] if said else []), END]


def _noted(folder: Path) -> dict[str, list[str]]:
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        noted = checked_json.parse(checked_json.read(path))
        return checked_json.table(dict.fromkeys(noted, list[str]), noted)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it") from None
