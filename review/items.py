"""The images of a page: rows of a synthetic set, photos of a real one. Their bytes are read when shown."""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from orchard import shards
from orchard.decisions import HUMAN, Key
from orchard.images.images import Photo, decode
from orchard.shards import opening

MEASURES = {
    "contrast": "contrast",
    "nearest_train": "distance to the nearest training photo; a copy below 1",
    "class_margin": "margin of the classifier",
    "feature_distance": "distance in features",
    "clip_score": "likeness to the prompt (CLIP)",
}
"""Column of a shard -> what the page calls it."""
GROUPS = 4
"""Row groups that stay in memory, each of about `orchard.shards.files.GROUP` bytes."""


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
    rows = RowReader()
    found = []
    for entry in (*manifest["files"], *manifest["rejected_files"]):
        path = folder / entry["name"]
        for place, row in enumerate(shards.rows_of(path, entry["sha256"])):
            if row["reason"] in ("", None, HUMAN):
                label = manifest["classes"][row["label"]]
                found.append((label, row["index"], _of_row(row, label, functools.partial(rows, path, place))))
    return [item for _, _, item in sorted(found, key=lambda one: one[:2])]


def _of_row(row: dict[str, Any], label: str, read: Callable[[], bytes]) -> Item:
    name, digest = shards.key_of(row, label)
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


class RowReader:
    """Reads the images of single rows, by row groups, of which the last few stay in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group = functools.lru_cache(maxsize=GROUPS)(_read_group)

    def __call__(self, path: Path, place: int) -> bytes:
        """The file of the image in row ``place`` of a shard."""
        with self._lock:
            for number, rows in enumerate(_group_sizes(path)):
                if place < rows:
                    found: bytes = self._group(path, number)[place].as_py()["bytes"]
                    return found
                place -= rows
        raise IndexError(place)


@functools.cache
def _group_sizes(path: Path) -> Sequence[int]:
    with opening.parquet(path) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def _read_group(path: Path, number: int) -> Any:
    with opening.parquet(path) as file:
        return file.read_row_group(number, columns=["image"])["image"]
