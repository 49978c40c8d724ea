"""The images of a page: rows of a synthetic set, photos of a real one. Their bytes are read when shown."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from orchard import shards
from orchard.decisions import HUMAN, Key
from orchard.images.images import Photo, decode

MEASURES = {
    "contrast": "contrast",
    "nearest_train": "distance to the nearest training photo; a copy below 1",
    "class_margin": "margin of the classifier",
    "feature_distance": "distance in features",
    "clip_score": "likeness to the prompt (CLIP)",
}
"""Column of a shard -> what the page calls it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is odd about a photo."""

    kind: str
    text: str
    other: int | None = None
    """Number of the image that it is about, too."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """An image to be shown."""

    name: str
    sha256: str
    label: str
    split: str
    """Of a photo; empty for a synthetic image."""
    read: Callable[[], bytes]
    prompt: str = ""
    context: str = ""
    measures: dict[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def key(self) -> Key:
        """By what decisions name it."""
        return self.name, self.sha256


def picture(item: Item) -> Image.Image:
    """The picture of an item, as `orchard.images.images.decode` gives it."""
    return decode(item.read(), item.name)


def of_photo(photo: Photo, **more: Any) -> Item:
    """A photo of a real set."""
    # Names that are not UTF-8 come with halves of characters, which no JSON takes.
    name = photo.path.encode("utf-8", "backslashreplace").decode()
    return Item(name=name, sha256=photo.sha256, label=photo.label, split=photo.split, read=photo.read, **more)


def of_shards(folder: Path) -> list[Item]:
    """The images of a synthetic set that are kept, or kept out by a person, class after class.

    Raises:
        UserError: the set is not complete, or a shard is not the one that the manifest names.
    """
    manifest = shards.read_manifest(folder)
    found = []
    for entry in (*manifest["files"], *manifest["rejected_files"]):
        path = folder / entry["name"]
        for place, row in enumerate(shards.rows_of(path, entry["sha256"])):
            if row["reason"] in ("", None, HUMAN):
                label = manifest["classes"][row["label"]]
                name, digest = shards.key_of(row, label)
                read = functools.partial(shards.image, path, entry["sha256"], place, digest)
                found.append((label, row["index"], _of_row(row, label, name, digest, read)))
    return [item for _, _, item in sorted(found, key=lambda one: one[:2])]


def _of_row(row: dict[str, Any], label: str, name: str, digest: str, read: Callable[[], bytes]) -> Item:
    return Item(
        name=name,
        sha256=digest,
        label=label,
        split="",
        read=read,
        prompt=row["prompt"] or "",
        # Contexts follow the prompt that the adapter was trained with.
        context=(row["prompt"] or "").partition(", ")[2],
        measures={name: row[name] for name in MEASURES if row[name] is not None},
    )
