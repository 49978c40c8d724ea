"""What lies beside images and says something of them: metadata files and captions."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from orchard import splits, typed
from orchard.errors import UserError

METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What metadata files say of the images, by file, and what a user should know of it."""

    texts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(root: Path, files: Sequence[PurePosixPath], everything: Sequence[Path]) -> Listing:
    """What the metadata and caption files among ``everything`` below ``root`` say of the images ``files``.

    Raises:
        UserError: a file that cannot be read, a row that makes no sense, or two captions of one image.
    """
    rows: dict[str, dict[str, Any]] = {}
    covered: set[str] = set()
    for path in sorted(path for path in everything if path.name in METADATA):
        folder = PurePosixPath(path.parent.relative_to(root).as_posix())
        for row in _rows(path):
            file = str(folder / _file_name(path, row))
            if rows.setdefault(file, row) != row:
                raise UserError(f"{path}: {file} stands there twice, with other values; keep one row of them")
        covered.update(str(file) for file in files if folder in file.parents)
    notes = []
    if silent := sorted(covered - rows.keys()):
        notes.append(
            f"metadata does not list {len(silent)} of {len(covered)} images "
            f"({splits.listed(silent)}); they are kept, without a text"
        )
    if absent := sorted(rows.keys() - covered):
        notes.append(f"metadata lists {len(absent)} images that are not there ({splits.listed(absent)})")
    texts = {file: row["text"] for file, row in rows.items() if row.get("text")}
    return Listing(
        texts=texts | _beside(root, files, frozenset(everything), texts),
        labels={file: str(row["label"]) for file, row in rows.items() if row.get("label") not in (None, "")},
        columns=tuple(dict.fromkeys(key for row in rows.values() for key in row if key)),
        notes=tuple(notes),
    )


def _file_name(path: Path, row: Any) -> PurePosixPath:
    """The image that a metadata row is about, checked with what the row says of it."""
    if not isinstance(row, dict):
        raise UserError(f'{path}: {row!r} is not an object; write one {{"file_name": …}} a line')
    if not row.get("file_name") or not isinstance(row["file_name"], str):
        found = ", ".join(f"{key} {value}" for key, value in row.items())[:200]
        raise UserError(f"{path}: a row has no file_name, found {found}; add it or remove the row")
    file = PurePosixPath(str(row["file_name"]))
    if file.is_absolute() or ".." in file.parts:
        raise UserError(f"{path}: {file} leads out of its folder; list files below it")
    if not isinstance(row.get("text"), str | None):
        raise UserError(f"{path}: the text of {file} is {typed.shown(row['text'])}; write a plain string")
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise UserError(f"{path}: the label of {file} is {typed.shown(label)}; write the name of its class")
    return file


def _rows(path: Path) -> Iterator[Any]:
    try:
        text = typed.read(path)
        typed.require_characters(text)
        if path.suffix == ".csv":
            yield from csv.DictReader(io.StringIO(text, newline=""), restkey="")
        else:
            yield from (typed.parse(line) for line in text.split("\n") if line.strip())
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend or remove it") from None


def _beside(
    root: Path, files: Sequence[PurePosixPath], everything: frozenset[Path], texts: Mapping[str, str]
) -> dict[str, str]:
    """Captions in ``NAME.txt`` beside ``NAME.jpg``, as kohya's tools keep them."""
    found: dict[str, str] = {}
    for file in files:
        path = root / file.with_suffix(".txt")
        if path not in everything:
            continue
        text = " ".join(_text(path).split())
        if text and texts.get(str(file), text) != text:
            raise UserError(f"{path}: says {text!r}, the metadata {texts[str(file)]!r}; keep one of them")
        found |= {str(file): text} if text else {}
    return found


def _text(path: Path) -> str:
    try:
        text = typed.read(path)
        typed.require_characters(text)
        return text
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend or remove it") from None
