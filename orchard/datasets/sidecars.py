"""What lies beside images and says something of them: metadata files and captions."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from orchard.errors import UserError, listed
from orchard.files import checked_json
from orchard.images import boxes

METADATA = ("metadata.csv", "metadata.jsonl")
CAPTIONS = (".txt", ".caption")
"""How files end that hold the caption of the image beside them, in small letters or capitals."""
TEXTS, LABELS = ("text", "caption", "prompt"), ("label", "labels", "class")
"""Usual names of the columns; the first one goes before the others."""
FILE = "file_name"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What metadata files say of the images, by file, and what a user should know of it."""

    texts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    sources: frozenset[str] = frozenset()
    """Files that this was read from."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What one row says of its image."""

    text: str | None
    label: str | None


def read(root: Path, files: Sequence[PurePosixPath], everything: Sequence[Path]) -> Listing:
    """What the metadata and caption files among ``everything`` below ``root`` say of the images ``files``.

    Raises:
        UserError: a file that cannot be read, a row that makes no sense, or two captions of one image.
    """
    found: dict[str, _Row] = {}
    covered: set[str] = set()
    columns: dict[str, None] = {}
    notes = []
    below: dict[PurePosixPath, list[str]] = defaultdict(list)
    for image in files:
        for folder in image.parents:
            below[folder].append(str(image))
    tables = sorted(path for path in everything if path.name.lower() in METADATA)
    for path in tables:
        folder = PurePosixPath(path.parent.relative_to(root).as_posix())
        table = list(_table(path))
        own = list(dict.fromkeys(key for _, row in table for key in row if key))
        text, label = (column(own, names, str(path)) for names in (TEXTS, LABELS))
        if unread := [name for name in own if name not in (FILE, text, label)]:
            notes.append(f"{path.relative_to(root)}: columns that are not read: {listed(unread)}")
        for number, row in table:
            name, said = _row(f"{path}: line {number}", row, text, label)
            if found.setdefault(file := str(folder / name), said) != said:
                raise UserError(f"{path}: {file} is listed twice, with other values; keep one row of them")
        columns |= dict.fromkeys(own)
        covered.update(below[folder])
    if silent := sorted(covered - found.keys()):
        notes.append(
            f"metadata does not list {len(silent)} of {len(covered)} images "
            f"({listed(silent)}); they are kept, without a text"
        )
    if absent := sorted(found.keys() - covered):
        notes.append(f"metadata lists {len(absent)} images that are not there ({listed(absent)})")
    texts = {file: row.text for file, row in found.items() if row.text}
    captions = _captions(root, files, everything)
    return Listing(
        texts=texts | _beside(captions, texts),
        labels={file: row.label for file, row in found.items() if row.label},
        columns=tuple(columns),
        sources=frozenset(
            path.relative_to(root).as_posix() for path in (*tables, *chain(*captions.values()))
        ),
        notes=tuple(notes),
    )


def column(columns: Sequence[str], names: Sequence[str], where: str) -> str | None:
    """The one of ``columns`` with a usual name, if any has; `UserError` where two might be meant."""
    found = [name for name in names if name in columns]
    if len(found) > 1 and found[0] != names[0]:
        raise UserError(f"{where}: columns {' and '.join(found)}; call the one to use {names[0]!r}")
    return found[0] if found else None


def _row(where: str, row: Any, text: str | None, label: str | None) -> tuple[PurePosixPath, _Row]:
    """The image that a metadata row is about, and what the row says of it, both checked."""
    name = row.get(FILE)
    if not isinstance(name, str) or not name:
        found = ", ".join(f"{key} {value}" for key, value in row.items())[:200]
        raise UserError(f"{where}: no {FILE}, found {found}; add it or remove the row")
    file = PurePosixPath(name)
    if file.is_absolute() or ".." in file.parts:
        raise UserError(f"{where}: {file} leads out of its folder; list files below it")
    said = row.get(text) if text else None
    if not isinstance(said, str | None):
        raise UserError(f"{where}: the {text} of {file} is {checked_json.shown(said)}; write a plain string")
    given = row.get(label) if label else None
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise UserError(
            f"{where}: the {label} of {file} is {checked_json.shown(given)}; write the name of its class"
        )
    has_text = said is not None and said.strip()
    return file, _Row(text=said if has_text else None, label=None if given in (None, "") else str(given))


def _table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a metadata file, each with the number of its (last) line."""
    try:
        text = checked_json.read(path)
        checked_json.require_characters(text)
        yield from (_csv if path.suffix.lower() == ".csv" else json_lines)(path, text)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); fix or remove it") from None


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # Strict, since a quote that is not closed would swallow the rows behind it.
    lines = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header = [name.strip() for name in next(lines, [])]
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise UserError(f"{path}: two columns are called {twice[0]}; rename or remove one")
    for values in lines:
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise UserError(
                f"{path}: line {lines.line_num} ({values[0][: checked_json.SHOWN]}) has {len(values)} "
                f"values, the first line {len(header)}; put a text that has commas in it into double quotes"
            )
        yield lines.line_num, dict(zip(header, values, strict=True))


def json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with the number of its line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = checked_json.parse(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if not isinstance(row, dict):
            wrong = f"{path}: line {number}: {checked_json.shown(row)} is not an object"
            raise UserError(f'{wrong}; write one {{"file_name": …}} a line')
        yield number, row


def _captions(
    root: Path, files: Sequence[PurePosixPath], everything: Sequence[Path]
) -> dict[str, list[Path]]:
    """The files ``NAME.txt``, ``NAME.caption`` and ``NAME.jpg.txt`` beside each image ``NAME.jpg``."""
    named: dict[Path, list[Path]] = defaultdict(list)
    for path in everything:
        if path.suffix.lower() in CAPTIONS:
            named[path.with_suffix("")].append(path)
    stems = {str(file): (root / file.with_suffix(""), root / file) for file in files}
    return {
        file: sorted(path for stem in both for path in named.get(stem, ())) for file, both in stems.items()
    }


def _beside(captions: Mapping[str, Sequence[Path]], texts: Mapping[str, str]) -> dict[str, str]:
    """The captions in files of their own, as kohya's tools keep them; ``texts`` are those of the metadata."""
    found: dict[str, str] = {}
    for file, paths in captions.items():
        for path in paths:
            said = _text(path)
            text = "" if boxes.is_yolo(said) else " ".join(said.split())
            known = found.get(file) or texts.get(file) or text
            if text and known != text:
                other = "another file" if file in found else "the metadata"
                raise UserError(f"{path}: says {text!r}, {other} {known!r}; keep one of them")
            found |= {file: text} if text else {}
    return found


def _text(path: Path) -> str:
    try:
        text = checked_json.read(path)
        checked_json.require_characters(text)
        return text
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); fix or remove it") from None
