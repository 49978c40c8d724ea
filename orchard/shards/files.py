"""One shard a file: write, list, read."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.files import storage
from orchard.files.atomic import file_name, whole_file
from orchard.images.images import TRAIN
from orchard.shards import contents, opening
from orchard.shards import header as headers
from orchard.shards.header import KEY, ShardHeader

REJECTED = "rejected"
NOT_CHOSEN = "not chosen"
"""The reason of a candidate in whose place another one is kept, or that waits for the choice."""
FLAGGED, ONE_COLOUR = "flagged by the safety checker", "of one colour"
NO_IMAGE = frozenset((FLAGGED, ONE_COLOUR))
"""The reasons of a row of which no seed gave an image: what the last one was. A black image stands for it."""
SYNTHETIC_COLUMNS = frozenset(("seed", "index", "scheduler", "lora", "base"))
"""Columns that only a synthetic set has."""
GROUP = 64 * 2**20
"""Bytes of images in a row group; those who read one row unpack as many."""
FOOTERS = 20_000
"""Shards of which the footers stay in memory."""
NAME = re.compile(rf"^(?P<split>{TRAIN}|{REJECTED})-(?P<label>.+)-(?P<number>\d{{5}})\.parquet$")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file that is there: its header and number of rows."""

    path: Path
    number: int
    rows: int
    size: int
    """Bytes."""
    header: ShardHeader
    groups: tuple[int, ...] = ()
    """Rows of each row group."""


def features(classes: Sequence[str]) -> Any:
    """The columns of a shard, as `datasets.Features`."""
    from datasets import ClassLabel, Features, Image, List, Value

    return Features(
        image=Image(),
        label=ClassLabel(names=list(classes)),
        prompt=Value("string"),
        seed=Value("int64"),
        index=Value("int32"),
        attempt=Value("int32"),
        guide=Value("string"),
        mask=Value("string"),
        repainted=Value("float32"),
        box=List(List(Value("float32"))),
        steps=Value("int32"),
        guidance=Value("float32"),
        strength=Value("float32"),
        negative_prompt=Value("string"),
        contrast_prompt=Value("string"),
        scheduler=Value("string"),
        lora=Value("string"),
        base=Value("string"),
        contrast=Value("float32"),
        phash=Value("string"),
        nearest_train=Value("float32"),
        class_margin=Value("float32"),
        feature_distance=Value("float32"),
        features=List(Value("float32")),
        clip_score=Value("float32"),
        reason=Value("string"),
        score=Value("float32"),
    )


def path_of(folder: Path, label: str, number: int, split: str = TRAIN) -> Path:
    """``data/train-apple-00000.parquet``; class names are made safe for a file name."""
    return folder / "data" / f"{split}-{file_name(label)}-{number:05d}.parquet"


def write(path: Path, rows: Sequence[Mapping[str, Any]], header: ShardHeader) -> None:
    """Write rows whose ``image`` is ``{"bytes": png, "path": name}``, whole or not at all.

    Columns of the screens and of repainting may be missing: null then, as where those were not used. What
    the header says of real images is written to the set's folder first (`orchard.shards.ledgers`).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features(header.classes).arrow_schema
    schema = schema.with_metadata({**schema.metadata, KEY: header.beside(path.parent.parent).encoded()})
    # Until the manifest has the shard's hash, the checksums of its pages tell of flipped bytes.
    with whole_file(path) as aside, pq.ParquetWriter(aside, schema, write_page_checksum=True) as file:
        for group in _groups(rows):
            table = pa.Table.from_pylist(
                [{name: row.get(name) for name in schema.names} for row in group], schema
            )
            file.write_table(table)


def _groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The rows in groups of about `GROUP` bytes of images: a column of Arrow's takes less than 2 GiB."""
    start = size = 0
    for place, row in enumerate(rows, 1):
        size += len(row["image"]["bytes"])
        if size >= GROUP or place == len(rows):
            yield rows[start:place]
            start, size = place, 0


def store(folder: Path, number: int, rows: Sequence[Mapping[str, Any]], header: ShardHeader) -> None:
    """Write shard ``number`` of a class: rows with a reason to the rejected split, the others to train.

    A row that stands in both counts as rejected (`load`). So those that join train are written there first,
    beside what it has; the rejected split is the step by which all of them change sides; then the rows that
    left go from train. Whatever stops a run in between, none is lost and every verdict is the old or the new.
    """
    train, rejected = (path_of(folder, header.label, number, split) for split in (TRAIN, REJECTED))
    before = made_with(shard_of(path) for path in (train, rejected) if path.is_file())
    header = replace(header, made_with=_distinct([*before, *header.made_with]))
    kept, away = ([row for row in rows if bool(row["reason"]) == out] for out in (False, True))
    there = {index for index, *_ in _verdicts(rejected)}
    joining = [row for row in kept if row["index"] in there]
    if joining:
        old = {row["index"]: row for row in rows_of(train)} if train.is_file() else {}
        both = old | {row["index"]: row for row in joining}
        _put(train, [both[index] for index in sorted(both)], header_of(train) if old else header)
    _put(rejected, away, header)
    _put(train, kept, header)


def _put(path: Path, rows: Sequence[Mapping[str, Any]], header: ShardHeader) -> None:
    """Make these the rows of the file, unless they are."""
    if not rows:
        storage.remove(path)
    elif not (_verdicts(path) == [_verdict(row) for row in rows] and _has_arguments(path, header)):
        write(path, rows, header)


def _has_arguments(path: Path, header: ShardHeader) -> bool:
    there = header_of(path)
    return (there.arguments, there.count) == (header.arguments, header.count)


def upgrade(folder: Path) -> None:
    """Give shards of older versions the columns of this one, all null there.

    A split whose files differ in their columns cannot be loaded by `datasets`.
    """
    import pyarrow.parquet as pq

    for shard in (one for split in (TRAIN, REJECTED) for one in existing(folder, split)):
        with shard.path.open("rb") as file:
            names = pq.read_schema(file).names
        if names != list(features(shard.header.classes)):
            storage.remove(folder / opening.MANIFEST)  # it has the hashes of the files as they were
            write(shard.path, rows_of(shard.path), shard.header)


def made_with(found: Iterable[Shard]) -> list[dict[str, str]]:
    """What the rows of these shards were made with, each once; older ones say the versions alone."""
    return _distinct(one for shard in found for one in shard.header.made_with or [shard.header.versions])


def _distinct(entries: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(sorted(one.items())): one for one in entries}.values())


def _verdicts(path: Path) -> list[tuple[Any, ...]]:
    if not path.is_file():
        return []
    return [_verdict(row) for row in columns(path, "index", "reason", "score").to_pylist()]


def _verdict(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["index"], row["reason"], row.get("score")


def load(folder: Path, label: str, number: int) -> list[dict[str, Any]]:
    """The rows of both splits of one shard, by index."""
    found: dict[int, dict[str, Any]] = {}
    for split in (TRAIN, REJECTED):
        path = path_of(folder, label, number, split)
        if path.is_file():
            found |= {row["index"]: row for row in rows_of(path)}
    return [found[index] for index in sorted(found)]


def rows_of(path: Path, sha256: str | None = None) -> list[dict[str, Any]]:
    """The rows of one file, images as ``{"bytes", "path"}``, label as its number.

    Columns that came after it was written are null.

    Raises:
        UserError: not the file with that hash, where one is given; not a whole shard, other columns, or a
            row without an image or a class.
    """
    with opening.parquet(path, sha256) as opened:
        contents.require_columns(opened.schema_arrow)
        header = _header(opened.schema_arrow.metadata)
        rows = contents.rows_within(opened, header.classes, header.label)
    return [dict.fromkeys(features(header.classes)) | row for row in rows]


def columns(path: Path, *names: str) -> Any:
    """A `pyarrow.Table` of these columns of one file alone; the images are not read."""
    with opening.parquet(path) as opened:
        return opened.read(columns=list(names))


def discarded_count(shard: Shard) -> int:
    """How many images were sampled for its rows and not taken."""
    import pyarrow.compute as pc

    return pc.sum(columns(shard.path, "attempt")["attempt"]).as_py() or 0


def header_of(path: Path) -> ShardHeader:
    """Where the rows of one file come from."""
    return shard_of(path).header


def existing(folder: Path, split: str = TRAIN) -> list[Shard]:
    """Every shard of one split in the folder, from its footer alone.

    Raises:
        UserError: a file that cannot be read or was not written by this toolkit.
    """
    pattern = f"{split}-*.parquet"
    if storage.is_local(folder):
        paths = list((folder / "data").glob(pattern))
    else:
        storage.refresh(folder)
        with storage.reached(folder):
            paths = list((folder / "data").glob(pattern))
    return [shard_of(path) for path in sorted(paths, key=str)]


def shard_of(path: Path) -> Shard:
    """One file, from its footer alone; raises `UserError` as `existing`."""
    with opening.named(path):
        there = path.stat()
    if storage.is_local(path):
        return _version(path, there.st_size, there.st_ino, there.st_mtime_ns)
    return _read(path, there.st_size)


@functools.lru_cache(maxsize=FOOTERS)
def _version(path: Path, size: int, inode: int, time: int) -> Shard:
    """What one version of a file says of itself: a set is listed many times in a run."""
    return _read(path, size)


def _read(path: Path, size: int) -> Shard:
    import pyarrow.parquet as pq

    match = NAME.match(path.name)
    with opening.named(path), path.open("rb") as file:
        footer = pq.read_metadata(file)
        header = _header(footer.metadata)
    if match is None:
        raise UserError(f"{path}: not a shard's name; move it elsewhere")
    if match["label"] != file_name(header.label):
        raise UserError(f"{path}: its rows are of class {header.label}; delete it and run generate again")
    return Shard(
        path=path,
        number=int(match["number"]),
        rows=footer.num_rows,
        size=size,
        header=header,
        groups=tuple(footer.row_group(place).num_rows for place in range(footer.num_row_groups)),
    )


def _header(metadata: Mapping[bytes, bytes] | None) -> ShardHeader:
    if KEY not in (metadata or {}):
        raise ValueError("not written by generate")
    return headers.decoded((metadata or {})[KEY])


def require_same(found: Iterable[Shard], wanted: ShardHeader, folder: Path) -> None:
    """Raise `UserError` with the difference when the folder holds other rows than ``wanted``."""
    for shard in found:
        headers.require_same(shard.header, wanted, folder)


def is_synthetic(folder: Path) -> bool:
    """Whether generate wrote the folder, complete or not: a stopped run must not pass for real images."""
    return any(KEY in _schema_metadata(path) for path in folder.rglob("*.parquet"))


def _schema_metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            return pq.read_schema(file).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return {}
