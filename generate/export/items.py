"""What is exported of a row, and what a format is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchard.files.atomic import file_name

FACTS = (
    *("prompt", "seed", "index", "attempt", "guide", "mask", "repainted", "box", "steps", "guidance"),
    *("strength", "negative_prompt", "contrast_prompt", "scheduler", "lora", "base"),
)
"""Columns that say how an image was made; what the screens measured is left to the shards."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image."""

    name: str
    """Of its file, such as ``apple-000012.png``; no two images share one."""
    data: bytes
    """The PNG file as it is in the set, metadata and signature included."""
    label: str
    number: int
    """Place of the label in the class list."""
    facts: Mapping[str, Any]
    """`FACTS`; null where there is none."""


class Writer(Protocol):
    """A format."""

    def __call__(self, folder: Path, classes: Sequence[str], items: Iterable[Item]) -> str:
        """Write the items, of which few are in memory, into an empty folder; how they are read, in words."""


def item(row: Mapping[str, Any], classes: Sequence[str]) -> Item:
    """The item of a row, whose label is a place in ``classes``."""
    label = classes[row["label"]]
    return Item(
        name=f"{file_name(label)}-{row['index']:06d}.png",
        data=row["image"]["bytes"],
        label=label,
        number=row["label"],
        facts={name: row[name] for name in FACTS},
    )


def put(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
