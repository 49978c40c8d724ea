"""What audits found, in a file beside the adapters or the set that they attacked; cards quote it."""

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypedDict

from orchard import cards
from orchard.errors import UserError
from orchard.files import atomic, checked_json
from orchard.images.images import sha256

FILE, CARD = "audited.json", "README.md"
START, END = "<!-- audit -->", "<!-- end of audit -->"
"""Around the section of a card, which is empty without an audit; a card without them is not changed."""
INTRODUCTION = (
    "Attacks that try to tell which real images were trained on (AUC 0.5 is chance, 1 gives all away), and "
    "how many samples are near copies of one: nearer than 99% of the training images are to their own "
    "nearest neighbour. Stronger attacks may find more."
)
TOGETHER = "+"
"""Between the SHA-256 of adapters that were attacked together."""


class Finding(TypedDict):
    """What one attack found."""

    attack: str
    """What was tried on what: a further audit that tries it at least as hard takes its place."""
    effort: int
    """How hard: draws a photo, or images."""
    said: str
    """What came of it, in a sentence."""


Findings = Mapping[str, Sequence[Finding]]
"""SHA-256 of an adapter, of adapters `together` or of a set -> what was found of it."""


def together(digests: Iterable[str]) -> str:
    """The name of adapters that were attacked together."""
    return TOGETHER.join(sorted(digests))


def digest(files: Sequence[Mapping[str, Any]]) -> str:
    """Of a set, by the files in its manifest."""
    return sha256("\n".join(sorted(f"{one['name']}:{one['sha256']}" for one in files)).encode())


def of_set(manifest: Mapping[str, Any]) -> set[str]:
    """What an audit may have been of where a set lies: the set, and the adapters that made it."""
    adapters = (one.get("lora", "") for one in manifest["arguments"].values())
    return {digest(manifest["files"]), *(part for one in adapters for part in one.split("+") if part)}


def write(folder: Path, found: Findings, there: Set[str]) -> list[str]:
    """Note what was found in a folder, beside what is known of others, and in its card what is ``there``.

    An attack that was tried harder before stays noted as it was.

    Returns:
        The sentences of such.

    Raises:
        UserError: an earlier note cannot be read.
    """
    noted, stayed = _noted(folder), []
    for name, findings in found.items():
        known = {one["attack"]: one for one in noted.get(name, ())}
        for one in findings:
            harder = known.get(one["attack"])
            if harder and harder["effort"] > one["effort"]:
                stayed.append(harder["said"])
            else:
                known[one["attack"]] = one
        noted[name] = list(known.values())
    atomic.write_json(folder / FILE, noted)
    card = folder / CARD
    if card.is_file():
        before, start, rest = card.read_bytes().partition(START.encode())
        _, end, after = rest.partition(END.encode())
        if start and end:
            with atomic.whole_file(card) as aside:
                aside.write_bytes(before + "\n".join(section(folder, there)).encode() + after)
    return stayed


def quoted(folder: Path, there: Set[str]) -> list[str]:
    """What audits said of what is ``there`` now, by its SHA-256; nothing where that was not attacked."""
    noted = _noted(folder)
    return [one["said"] for name in noted if {*name.split(TOGETHER)} <= there for one in noted[name]]


def section(folder: Path, there: Set[str]) -> list[str]:
    """Lines of the card of ``folder`` with what is `quoted`, between its marks."""
    said = [f"- {cards.plain(line)}" for line in quoted(folder, there)]
    return [START, *(["", "## Audit", "", INTRODUCTION, "", *said, ""] if said else []), END]


def _noted(folder: Path) -> dict[str, list[Finding]]:
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        noted = checked_json.parse(checked_json.read(path))
        return checked_json.table(dict.fromkeys(noted, list[Finding]), noted)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it") from None
