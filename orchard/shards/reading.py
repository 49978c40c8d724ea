"""A complete synthetic set as photos."""

import bisect
import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from orchard.errors import UserError
from orchard.images.images import TRAIN, ImageSet, Photo, sha256
from orchard.shards import ledgers
from orchard.shards.files import FOOTERS, NO_IMAGE, NOT_CHOSEN, header_of, rows_of, shard_of
from orchard.shards.manifest import Entry, Manifest, ledger, read_manifest
from orchard.shards.opening import MANIFEST, another, parquet, require_hash

NO_SCREENS = {NOT_CHOSEN, *NO_IMAGE}
"""Reasons that are no screen's doing."""
REMEDY = f"delete {MANIFEST} and run the same generate command again"

GROUPS = 2
"""Row groups whose images stay in memory: threads that decode one row after the other read from two."""
_one_group = Lock()


def read(folder: Path) -> ImageSet:
    """The synthetic set as photos in row order, all of them training images; rejected ones are left out.

    A photo's file stays in its shard, and is read from there whenever it is wanted.

    Raises:
        UserError: a shard is missing (a rejected one may be), or is not the one that the manifest names, or
            the list of real images that it has seen is not there as it was written.
    """
    manifest = read_manifest(folder)
    # Whoever shows them later, after hours of training, has to find them as they were.
    for path, entry in _rejected_there(folder, manifest):
        require_hash(path, entry["sha256"])
    return _set(folder, manifest, (row.photo for row in _photos(folder, manifest, manifest["files"])))


def read_unscreened(folder: Path, screen: str) -> ImageSet:
    """The set as if ``screen`` had not been there: each class has as many images as it has in `read`.

    What this screen was the first to reject stands in its place again, and the last rows, which were
    sampled in its stead, are left out.
    """
    manifest = read_manifest(folder)
    away = [row for row in _photos(folder, manifest, manifest["rejected_files"]) if row.reason == screen]
    kept: Counter[int] = Counter()
    first = []
    for row in sorted([*_photos(folder, manifest, manifest["files"]), *away], key=lambda row: row[:2]):
        if kept[row.label] < manifest["rows"][manifest["classes"][row.label]]:
            kept[row.label] += 1
            first.append(row.photo)
    return _set(folder, manifest, first)


def rejected(folder: Path, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The rows that the screens turned down, file after file; files that were deleted are left out."""
    for _, entry in _rejected_there(folder, manifest):
        rows = _whole(folder, entry, manifest["classes"])
        yield from (row for row in rows if row.get("reason") not in NO_SCREENS)


def _rejected_there(folder: Path, manifest: Manifest) -> list[tuple[Path, Entry]]:
    named = [(folder / entry["name"], entry) for entry in manifest["rejected_files"]]
    return [(path, entry) for path, entry in named if path.is_file()]


def rejections(manifest: Manifest) -> dict[str, int]:
    """Screen -> images of all classes that it was the first to reject, by name."""
    found: Counter[str] = Counter()
    for reasons in manifest["rejected"].values():
        found.update(reasons)
    return {name: found[name] for name in sorted(found.keys() - NO_SCREENS)}


def _set(folder: Path, manifest: Manifest, photos: Iterable[Photo]) -> ImageSet:
    return ImageSet(
        name=str(folder),
        classes=tuple(manifest["classes"]),
        photos=tuple(photos),
        seen=frozenset().union(*ledger(manifest).values()),
    )


def rows(folder: Path, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The rows that are kept, as `orchard.shards.rows_of`, one file in memory at a time.

    Raises:
        UserError: as for `read`.
    """
    for entry in manifest["files"]:
        yield from _whole(folder, entry, manifest["classes"])


def _whole(folder: Path, entry: Entry, classes: Sequence[str]) -> list[dict[str, Any]]:
    path = folder / entry["name"]
    if not path.is_file():
        raise UserError(f"{path}: named in {MANIFEST} but missing; run the same generate command again")
    rows = rows_of(path, entry["sha256"])
    header = header_of(path)
    ledgers.require(folder, ledgers.named([header]))
    if header.classes != classes:
        raise UserError(f"{path}: has another class list than {MANIFEST}; {REMEDY}")
    if len(rows) != entry["rows"]:
        raise UserError(f"{path}: {len(rows)} rows, {MANIFEST} says {entry['rows']}; {REMEDY}")
    for place, row in enumerate(rows):
        row["image"]["path"] = row["image"]["path"] or f"{path.name}/{place}"
    return rows


class _Row(NamedTuple):
    label: int
    number: int
    """Its index in the class."""
    reason: str | None
    photo: Photo


def _photos(folder: Path, manifest: Manifest, entries: Iterable[Entry]) -> Iterator[_Row]:
    """The rows of these files, their images left where they are."""
    classes = manifest["classes"]
    for entry in entries:
        path = folder / entry["name"]
        for place, row in enumerate(_whole(folder, entry, classes)):
            digest = sha256(row["image"]["bytes"])
            photo = Photo(
                path=row["image"]["path"],
                label=classes[row["label"]],
                split=TRAIN,
                sha256=digest,
                read=partial(image, path, entry["sha256"], place, digest),
                text=row["prompt"],
            )
            yield _Row(row["label"], row["index"], row.get("reason"), photo)


def image(path: Path, shard: str, place: int, digest: str) -> bytes:
    """The image in a row of a file; ``shard`` is the hash that the file had, ``digest`` that of the image.

    Raises:
        UserError: it is another one by now, or gone.
    """
    with _one_group:
        group, row = _place(path, shard, place)
        images = _images(path, shard, group)
    data = images[row].as_py() if row < len(images) else None
    if data is None or sha256(data) != digest:
        raise another(path)
    return data


@functools.lru_cache(maxsize=GROUPS)
def _images(path: Path, shard: str, group: int) -> Any:
    """The images of a row group, as an array of Arrow's."""
    with parquet(path) as opened:
        return opened.read_row_group(group, columns=["image.bytes"])["image"].combine_chunks().field("bytes")


@functools.lru_cache(maxsize=FOOTERS)
def _starts(path: Path, shard: str) -> list[int]:
    """The first row of each row group."""
    return [0, *itertools.accumulate(shard_of(path).groups)]


def _place(path: Path, shard: str, place: int) -> tuple[int, int]:
    """A row's group and its place there."""
    starts = _starts(path, shard)
    group = bisect.bisect_right(starts, place) - 1
    return group, place - starts[group]
