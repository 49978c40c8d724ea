"""The manifest: what a complete synthetic set holds, and which real images had a part in it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from orchard import cards, decisions
from orchard.errors import UserError
from orchard.files import checked_json, storage
from orchard.files.atomic import file_hash, write_json
from orchard.images.images import TRAIN
from orchard.shards import ledgers
from orchard.shards.files import NAME, REJECTED, Shard, columns, existing, made_with, rows_of, write
from orchard.shards.header import SCHEMA, ShardHeader
from orchard.shards.opening import MANIFEST, another, require_hash
from orchard.shards.reviewed import Review, reviews

DATA = "data/"


class Entry(TypedDict):
    """A shard's file."""

    name: str
    rows: int
    sha256: str
    size: NotRequired[int]
    """Bytes."""


class Manifest(TypedDict):
    """What a complete set holds. Readers lean on the required keys."""

    schema: int
    classes: list[str]
    """The whole class list of the real set."""
    rows: dict[str, int]
    """Class -> images."""
    rejected: dict[str, dict[str, int]]
    """Class -> screen -> images that it was the first to reject."""
    trained_on: list[str]
    """SHA-256 of the real images that the generator has been tuned on."""
    screened_with: dict[str, list[str]]
    """Screen -> SHA-256 of the real images that it has seen."""
    ledgers: list[str]
    """Files of the folder that list these images for its shards."""
    files: list[Entry]
    rejected_files: list[Entry]
    arguments: dict[str, dict[str, Any]]
    """Class -> `orchard.shards.header.Origin.arguments`."""
    unknown_ledger: list[str]
    """Classes of whose generator nobody knows what it has been tuned on."""
    versions: NotRequired[dict[str, dict[str, str]]]
    made_with: NotRequired[dict[str, list[dict[str, str]]]]
    sheets: NotRequired[list[str]]
    """Contact sheets, as files of the folder."""
    reviews: NotRequired[list[Review]]
    """What people said of its images."""


ADDED: Mapping[str, Any] = {
    "rejected": {},
    "rejected_files": [],
    "screened_with": {},
    "ledgers": [],
    "arguments": {},
    "unknown_ledger": [],
}
"""What earlier schemas did not say, and what that meant."""
GENERATOR = "generator"


def requested_counts(found: Iterable[Shard]) -> dict[str, int]:
    """Images that each class was asked for, at most: a run may have asked for fewer than one before it."""
    counts: dict[str, int] = {}
    for shard in found:
        counts[shard.header.label] = max(counts.get(shard.header.label, 0), shard.header.count)
    return counts


def lower_count(folder: Path, label: str, count: int) -> None:
    """Make ``count`` what the class was asked for, where a stopped run was asked for more than is there."""
    kept, rejected = (
        [shard for shard in existing(folder, split) if shard.header.label == label]
        for split in (TRAIN, REJECTED)
    )
    rows = sum(shard.rows for shard in kept)
    for shard in (*kept, *rejected):
        if count <= rows < shard.header.count:
            write(shard.path, rows_of(shard.path), replace(shard.header, count=count))


def require_complete(found: Sequence[Shard], folder: Path) -> dict[str, int]:
    """Rows per class; raise `UserError` when a class has fewer than were asked for."""
    rows: Counter[str] = Counter()
    for shard in found:
        rows[shard.header.label] += shard.rows
    wanted = requested_counts(found)
    for label, there in rows.items():
        if there < wanted[label]:
            raise UserError(
                f"{folder}: {label} has {there} of {wanted[label]} images, from a run that was stopped; "
                f"run the command for {label} again (with --count {there} if they are enough), then this one"
            )
    return dict(rows)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of the shards that are there; they have to be complete."""
    shards, rejected = existing(folder), existing(folder, REJECTED)
    _require_one_list([*shards, *rejected])
    headers = {shard.header.label: shard.header for shard in shards}
    rows = require_complete(shards, folder)
    seen = {digest for one in headers.values() for digest in ledgers.hashes(folder, one.trained_on or [])}
    return {
        "schema": SCHEMA,
        "classes": shards[0].header.classes,
        "rows": rows,
        "rejected": _reasons(rejected),
        "arguments": {label: header.arguments for label, header in headers.items()},
        "versions": {label: header.versions for label, header in headers.items()},
        "made_with": {
            label: made_with(shard for shard in [*shards, *rejected] if shard.header.label == label)
            for label in headers
        },
        "trained_on": sorted(seen),
        "unknown_ledger": sorted(label for label, header in headers.items() if header.trained_on is None),
        "screened_with": _screened_with(folder, headers.values()) | _shown(folder),
        "ledgers": [ledgers.name_of(one) for one in ledgers.named(s.header for s in (*shards, *rejected))],
        "files": [_entry(shard) for shard in shards],
        "rejected_files": [_entry(shard) for shard in rejected],
        "reviews": reviews(folder),
    }


def _require_one_list(found: Sequence[Shard]) -> None:
    """Raise `UserError` when a label stands for one class in one shard and for another in the next."""
    for shard in found:
        if shard.header.classes != found[0].header.classes:
            raise UserError(
                f"{shard.path}: its class list is {', '.join(shard.header.classes)}, that of "
                f"{found[0].path.name} is {', '.join(found[0].header.classes)}; move one of them elsewhere"
            )


def _entry(shard: Shard) -> Entry:
    return {
        "name": f"{DATA}{shard.path.name}",
        "rows": shard.rows,
        "sha256": file_hash(shard.path),
        "size": shard.path.stat().st_size,
    }


def _reasons(rejected: Iterable[Shard]) -> dict[str, dict[str, int]]:
    """Class -> reason -> number of images."""
    found: dict[str, Counter[str]] = {}
    for shard in rejected:
        reasons = Counter(columns(shard.path, "reason")["reason"].to_pylist())
        found.setdefault(shard.header.label, Counter()).update(reasons)
    return {label: dict(sorted(reasons.items())) for label, reasons in found.items()}


def _screened_with(folder: Path, headers: Iterable[ShardHeader]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for header in headers:
        for screen, seen in header.screened_with.items():
            found.setdefault(screen, set()).update(ledgers.hashes(folder, seen))
    return {screen: sorted(digests) for screen, digests in sorted(found.items())}


def _shown(folder: Path) -> dict[str, list[str]]:
    """The real photos that reviewers could see."""
    found = decisions.shown(decisions.read(folder / decisions.FILE))
    return {decisions.HUMAN: sorted(found)} if found else {}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it, last of all: its presence means that the set is complete."""
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete synthetic set; schema 1 says nothing of screens.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    if storage.is_local(folder) and not folder.is_dir():
        hub = f", on the Hub it is hf://datasets/{folder}" if cards.is_hub_id(str(folder)) else ""
        raise UserError(f"--synthetic {folder}: no such folder; python -m generate writes one{hub}")
    if not path.is_file():
        if not (existing(folder) or existing(folder, REJECTED)):
            raise UserError(f"{folder}: holds no synthetic set; give a folder that python -m generate wrote")
        raise UserError(f"{folder}: no {MANIFEST}, so not complete; run the same generate command again")
    try:
        return _checked(checked_json.parse(checked_json.read(path)))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run generate again") from None


def _checked(value: Any) -> Manifest:
    """The manifest in ``value``; every file it names lies in its own folder."""
    if isinstance(value, dict) and checked_json.conform(int, value.get("schema"), "schema") > SCHEMA:
        raise ValueError("written by a newer version; update this toolkit")
    manifest = checked_json.typed(Manifest, {**ADDED, **value} if isinstance(value, dict) else value)
    checked_json.require_distinct(manifest["classes"])
    for entry in (*manifest["files"], *manifest["rejected_files"]):
        name = entry["name"]
        if not name.startswith(DATA) or not NAME.match(name.removeprefix(DATA)):
            raise ValueError(f"{name[:80]!r} is not a shard's name")
    for name in manifest["ledgers"]:
        if not ledgers.NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is not a ledger's name")
    return manifest


def require_unaltered(folder: Path, *, verify: bool = False) -> None:
    """Raise `UserError` unless every shard that is there is the one that the manifest names.

    By its size, and by its hash with ``verify`` or where the manifest has no sizes; whoever reads rows looks
    at their checksums. One that is missing can be filled in; without a manifest, as in a stopped run, nothing
    tells.
    """
    if not (folder / MANIFEST).is_file():
        return
    manifest = read_manifest(folder)
    named = {entry["name"]: entry for entry in (*manifest["files"], *manifest["rejected_files"])}
    for shard in (*existing(folder, TRAIN), *existing(folder, REJECTED)):
        entry = named.get(f"{DATA}{shard.path.name}")
        if entry is None or entry.get("size", shard.size) != shard.size:
            raise another(shard.path)
        if verify or "size" not in entry:
            require_hash(shard.path, entry["sha256"])


def require_ledgers(folder: Path) -> None:
    """Raise `UserError` unless the folder holds every list of real images that its shards name."""
    found = (*existing(folder), *existing(folder, REJECTED))
    ledgers.require(folder, ledgers.named(shard.header for shard in found))


def ledger(manifest: Manifest) -> dict[str, frozenset[str]]:
    """Who has seen real images -> their SHA-256: the generator, and each screen that compares with some."""
    screens = {f"screen {name}": frozenset(seen) for name, seen in manifest["screened_with"].items()}
    return {GENERATOR: frozenset(manifest["trained_on"]), **screens}
