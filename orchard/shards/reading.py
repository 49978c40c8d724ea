"""A complete synthetic set as photos."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.images import TRAIN, ImageSet, Photo, sha256
from orchard.shards.files import origin_of, rows_of
from orchard.shards.manifest import MANIFEST, ledger, read_manifest


def read(folder: Path) -> ImageSet:
    """The synthetic set as photos in row order, all of them training images; rejected ones are left out."""
    manifest = read_manifest(folder)
    photos = [photo for entry in manifest["files"] for photo in _photos(folder, entry, manifest["classes"])]
    return ImageSet(
        name=str(folder),
        classes=tuple(manifest["classes"]),
        photos=tuple(photos),
        seen=frozenset().union(*ledger(manifest).values()),
    )


def _photos(folder: Path, entry: Mapping[str, Any], classes: Sequence[str]) -> list[Photo]:
    path = folder / entry["name"]
    if not path.is_file():
        raise UserError(f"{path}: named in {MANIFEST} but missing; run the same generate command again")
    rows = rows_of(path)
    if origin_of(path).classes != list(classes):
        raise UserError(f"{path}: has another class list than {MANIFEST}; run generate again")
    if len(rows) != entry["rows"]:
        raise UserError(f"{path}: {len(rows)} rows, {MANIFEST} says {entry['rows']}; run generate again")
    return [
        Photo(
            path=row["image"]["path"] or f"{path.name}/{place}",
            label=classes[row["label"]],
            split=TRAIN,
            sha256=sha256(row["image"]["bytes"]),
            read=partial(bytes, row["image"]["bytes"]),
            text=row["prompt"],
        )
        for place, row in enumerate(rows)
    ]
