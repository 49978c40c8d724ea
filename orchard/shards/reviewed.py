"""What people decided on the rows of a synthetic set (`orchard.decisions`), and whether it was followed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from orchard import decisions
from orchard.decisions import HUMAN, Decision, Key
from orchard.images.images import TRAIN, sha256
from orchard.shards.files import REJECTED, columns, existing, rows_of


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A row that somebody decided on, or that is kept out by a decision of before."""

    label: str
    index: int
    reason: str
    """Why it is kept out at present; empty where it is kept."""
    decision: Decision

    @property
    def is_rejected(self) -> bool:
        """Whether a person rejects it."""
        return self.decision.verdict == "reject"


class Review(TypedDict):
    """What one reviewer said of the rows of a set."""

    reviewer: str
    kept: int
    rejected: int
    first: str
    last: str
    """Times of the first and the last of these decisions."""


def reviewed(folder: Path, labels: Iterable[str] | None = None) -> list[Reviewed]:
    """The rows of these classes, or of all, that `review.jsonl` in the folder has a say in."""
    said = decisions.current(decisions.read(folder / decisions.FILE))
    names = {name for name, _ in said}
    wanted = None if labels is None else set(labels)
    # Without decisions only those of before count, and what they keep out lies in the other split.
    splits = (TRAIN, REJECTED) if said else (REJECTED,)
    return [
        row
        for split in splits
        for shard in existing(folder, split)
        if wanted is None or shard.header.label in wanted
        for row in _of_shard(shard.path, shard.header.label, names, said)
    ]


def key_of(row: Mapping[str, Any], label: str) -> Key:
    """By what decisions name the image of a row; ``label`` is its class."""
    return _name(row, label), sha256(row["image"]["bytes"])


def _name(row: Mapping[str, Any], label: str) -> str:
    return row["image"]["path"] or f"{label}-{row['index']:06d}.png"


def _of_shard(path: Path, label: str, names: set[str], said: Mapping[Key, Decision]) -> Iterator[Reviewed]:
    table = columns(path, "index", "reason", "image.path").to_pylist()
    # The images are read where a name or a verdict calls for it alone.
    if not any(row.get("reason") == HUMAN or _name(row, label) in names for row in table):
        return
    for row in rows_of(path):
        key = key_of(row, label)
        if key in said or row["reason"] == HUMAN:
            decision = said.get(key, Decision())
            yield Reviewed(label=label, index=row["index"], reason=row["reason"] or "", decision=decision)


def pending(folder: Path, labels: Iterable[str]) -> bool:
    """Whether rows of these classes are kept, or kept out, otherwise than people decided."""
    return any(
        row.is_rejected != (row.reason == HUMAN)
        for row in reviewed(folder, labels)
        if row.reason in ("", HUMAN)
    )


def reviews(folder: Path) -> list[Review]:
    """What each reviewer said, as far as the set follows it."""
    found: dict[str, Review] = {}
    for row in reviewed(folder):
        if not row.decision.verdict or row.is_rejected != (row.reason == HUMAN):
            continue
        who, when = row.decision.reviewer, row.decision.time
        one = found.setdefault(who, Review(reviewer=who, kept=0, rejected=0, first=when, last=when))
        one["rejected" if row.is_rejected else "kept"] += 1
        one["first"], one["last"] = min(one["first"], when), max(one["last"], when)
    return [found[who] for who in sorted(found)]
