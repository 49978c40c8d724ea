"""What an audit found, in a file beside the adapters or the set that it attacked; cards quote it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchard import cards
from orchard.files import atomic, checked_json
from orchard.images.images import sha256

FILE, CARD = "audit.json", "README.md"
SHARDS = "shards"
"""What stands for a set among the names of what was attacked."""
HEADING = "## Audit"
INTRODUCTION = (
    "Attacks that try to tell which real images were trained on (AUC 0.5 is chance, 1 gives all away), and "
    "how many samples are near copies; stronger attacks may find more."
)


def digest(files: Sequence[Mapping[str, Any]]) -> str:
    """Of a set, by the files in its manifest."""
    return sha256("\n".join(sorted(f"{one['name']}:{one['sha256']}" for one in files)).encode())


def write(folder: Path, attacked: Mapping[str, str], said: Sequence[str]) -> None:
    """Write the file of a folder, and put what was ``said`` at the end of its card, if it has one.

    ``attacked``: file, or `SHARDS` -> SHA-256.
    """
    atomic.write_json(folder / FILE, {"of": dict(attacked), "said": list(said)})
    card = folder / CARD
    if card.is_file():
        text = card.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0].rstrip("\n")
        with atomic.whole_file(card) as aside:
            aside.write_text("\n".join([text, "", *_lines(said)]), encoding="utf-8")


def found(folder: Path, there: Mapping[str, str]) -> list[str]:
    """What an audit said of what lies ``there`` in the folder now, as in `write`; nothing without one."""
    try:
        kinds = {"of": dict[str, str], "said": list[str]}
        read = checked_json.table(kinds, checked_json.parse(checked_json.read(folder / FILE)))
    except (OSError, ValueError):
        return []
    both = read["of"].keys() & there.keys()
    same = both and all(read["of"][name] == there[name] for name in both)
    return list(read["said"]) if same else []


def section(folder: Path, there: Mapping[str, str]) -> list[str]:
    """Lines of the card of ``folder`` about what `found` has; none where that is nothing."""
    said = found(folder, there)
    return _lines(said) if said else []


def _lines(said: Sequence[str]) -> list[str]:
    return [HEADING, "", INTRODUCTION, "", *(f"- {cards.plain(line)}" for line in said), ""]
