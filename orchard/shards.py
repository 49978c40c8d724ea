"""The synthetic set on disk: Parquet shards that describe themselves, and a manifest that comes last.

Each shard carries the arguments of its class in its own schema metadata, so an interrupted run needs
nothing but the folder to go on, and the manifest is a pure function of the shards.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.images import TRAIN, ImageSet, Photo, sha256
from orchard.run import differences, file_hash, file_name, whole_file, write_json

SCHEMA = 1
MANIFEST = "manifest.json"
KEY = b"orchard"
MARKS = frozenset(("seed", "index", "scheduler", "lora", "base"))
"""Columns that only a synthetic set has."""
NAME = re.compile(r"^train-(?P<label>.+)-(?P<number>\d{5})\.parquet$")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all rows of one class have in common; two origins that differ may not share a folder."""

    label: str
    classes: list[str]
    """The whole class list of the real set."""
    arguments: dict[str, Any]
    """Everything that decides the pixels of row k."""
    trained_on: list[str] | None
    """SHA-256 of the real images that the generator has been tuned on; None when it is not known."""
    versions: dict[str, str]
    count: int
    """Images asked for; fewer rows than this mean that a run was stopped."""
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file that is there: its origin and number of rows."""

    path: Path
    number: int
    rows: int
    origin: Origin


def features(classes: Sequence[str]) -> Any:
    """The columns of a shard, as `datasets.Features`."""
    from datasets import ClassLabel, Features, Image, Value

    return Features(
        image=Image(),
        label=ClassLabel(names=list(classes)),
        prompt=Value("string"),
        seed=Value("int64"),
        index=Value("int32"),
        attempt=Value("int32"),
        guide=Value("string"),
        steps=Value("int32"),
        guidance=Value("float32"),
        scheduler=Value("string"),
        lora=Value("string"),
        base=Value("string"),
    )


def path_of(folder: Path, label: str, number: int) -> Path:
    """``data/train-apple-00000.parquet``; class names are made safe for a file name."""
    return folder / "data" / f"train-{file_name(label)}-{number:05d}.parquet"


def write(path: Path, rows: Sequence[Mapping[str, Any]], origin: Origin) -> None:
    """Write rows whose ``image`` is ``{"bytes": png, "path": name}``, whole or not at all."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    table = Dataset.from_list([dict(row) for row in rows], features=features(origin.classes)).data.table
    metadata = {**(table.schema.metadata or {}), KEY: json.dumps(asdict(origin), sort_keys=True).encode()}
    with whole_file(path) as aside:
        pq.write_table(table.replace_schema_metadata(metadata), aside)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of one shard, images as ``{"bytes", "path"}``, label as its number."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def given_up(shard: Shard) -> int:
    """How many images were sampled for its rows and not taken."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if "attempt" not in pq.read_schema(shard.path).names:
        return 0  # written before there were several attempts
    return pc.sum(pq.read_table(shard.path, columns=["attempt"])["attempt"]).as_py() or 0


def existing(folder: Path) -> list[Shard]:
    """Every shard in the folder, from its footer alone.

    Raises:
        UserError: a file that cannot be read or was not written by this toolkit.
    """
    return [_shard(path) for path in sorted((folder / "data").glob("train-*.parquet"))]


def _shard(path: Path) -> Shard:
    import pyarrow
    import pyarrow.parquet as pq

    match = NAME.match(path.name)
    try:
        footer = pq.read_metadata(path)
        origin = Origin(**json.loads(footer.metadata[KEY]))
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a whole shard ({error}); delete it and run generate again") from None
    if match is None:
        raise UserError(f"{path}: not a shard's name; move it elsewhere")
    return Shard(path=path, number=int(match["number"]), rows=footer.num_rows, origin=origin)


def require_same(found: Iterable[Shard], wanted: Origin, folder: Path) -> None:
    """Raise `UserError` with the difference when the folder holds other rows than ``wanted``."""
    for shard in found:
        if shard.origin.classes != wanted.classes:
            raise UserError(
                f"--output {folder}: its class list is {', '.join(shard.origin.classes)}, not "
                f"{', '.join(wanted.classes)}; choose another --output"
            )
        if shard.origin.label != wanted.label:
            continue
        # Older shards do not say the scale; the LoRA's hash stands for it.
        scale = {"lora_scale": wanted.arguments.get("lora_scale")}
        changes = differences(scale | shard.origin.arguments, wanted.arguments)
        if changes:
            raise UserError(
                f"--output {folder}: {wanted.label} is there with {changes}; "
                "choose another --output or the same arguments"
            )


def require_complete(found: Sequence[Shard], folder: Path) -> dict[str, int]:
    """Rows a class; raise `UserError` when a class has fewer than were asked for."""
    rows: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for shard in found:
        rows[shard.origin.label] += shard.rows
        asked[shard.origin.label] = max(asked[shard.origin.label], shard.origin.count)
    for label, there in rows.items():
        if there < asked[label]:
            raise UserError(
                f"{folder}: {label} has {there} of {asked[label]} images, from a run that was stopped; "
                f"run the command for {label} again, then this one"
            )
    return dict(rows)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of the shards that are there; they have to be complete."""
    shards = existing(folder)
    origins = {shard.origin.label: shard.origin for shard in shards}
    rows = require_complete(shards, folder)
    seen = {digest for origin in origins.values() for digest in origin.trained_on or ()}
    return {
        "schema": SCHEMA,
        "classes": shards[0].origin.classes,
        "rows": rows,
        "arguments": {label: origin.arguments for label, origin in origins.items()},
        "versions": {label: origin.versions for label, origin in origins.items()},
        "trained_on": sorted(seen),
        "unknown_ledger": sorted(label for label, origin in origins.items() if origin.trained_on is None),
        "files": [
            {"name": f"data/{s.path.name}", "rows": s.rows, "sha256": file_hash(s.path)} for s in shards
        ],
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write it, last of all: its presence means that the set is complete."""
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete synthetic set.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"--synthetic {folder}: no such folder; python -m generate writes one")
    if not path.is_file():
        raise UserError(f"{folder}: no {MANIFEST}, so not complete; run the same generate command again")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] > SCHEMA:
            raise UserError(f"{path}: written by a newer version; update this toolkit")
        missing = [key for key in ("classes", "rows", "trained_on", "files") if key not in manifest]
        if missing:
            raise UserError(f"{path}: no {', '.join(missing)} in it; run generate again")
        return manifest
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run generate again") from None


def read(folder: Path) -> ImageSet:
    """The synthetic set as photos in row order, all of them training images."""
    manifest = read_manifest(folder)
    photos = [photo for entry in manifest["files"] for photo in _photos(folder, entry, manifest["classes"])]
    return ImageSet(
        name=str(folder),
        classes=tuple(manifest["classes"]),
        photos=tuple(photos),
        seen=frozenset(manifest["trained_on"]),
    )


def is_synthetic(folder: Path) -> bool:
    """Whether generate wrote the folder, complete or not: a stopped run must not pass for real images."""
    return any(KEY in _schema_metadata(path) for path in folder.rglob("*.parquet"))


def _schema_metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).metadata or {}
    except (OSError, pyarrow.ArrowException):
        return {}


def _photos(folder: Path, entry: Mapping[str, Any], classes: Sequence[str]) -> list[Photo]:
    path = folder / entry["name"]
    if not path.is_file():
        raise UserError(f"{path}: named in {MANIFEST} but missing; run the same generate command again")
    rows = rows_of(path)
    if len(rows) != entry["rows"]:
        raise UserError(f"{path}: {len(rows)} rows, {MANIFEST} says {entry['rows']}; run generate again")
    return [
        Photo(
            path=row["image"]["path"],
            label=classes[row["label"]],
            split=TRAIN,
            sha256=sha256(row["image"]["bytes"]),
            read=partial(bytes, row["image"]["bytes"]),
            text=row["prompt"],
        )
        for row in rows
    ]
