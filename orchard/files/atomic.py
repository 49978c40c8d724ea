"""Files that appear whole or not at all, and the names that they may have."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from orchard.errors import UserError, WriteError
from orchard.files import lock, storage

_UMASK = threading.Lock()
"""It can only be read by setting it: of two threads at once one would see the other's."""
LONGEST_NAME = 160
"""Bytes of a class in a file's name, of the 255 that file systems take."""


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name to write to beside ``path``; it becomes ``path`` only once it is on disk.

    ``shared``: other processes may be writing the same file; they take turns.

    Raises:
        WriteError: it cannot be written; nothing is left beside ``path``.
    """
    if not storage.is_local(path):
        with written(path), storage.uploaded(path) as aside:
            yield aside
        return
    # Always the same name, so that the next run finds what a killed one has left, and writes over it.
    aside = path.with_name(f"{path.name}.part")
    with written(path):
        aside.parent.mkdir(parents=True, exist_ok=True)
        with lock.exclusive(aside.parent) if shared else nullcontext():
            try:
                yield aside
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
                # Some writers make private files; a dataset is there to be read by others.
                aside.chmod(0o666 & ~_umask())
                aside.replace(path)
            except BaseException:  # and only then: once renamed, the name may be another process's again
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
                raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into beside ``path``; it becomes ``path`` once all of its files are on disk.

    Raises:
        WriteError: it cannot be written; nothing is left beside ``path``.
    """
    aside, before = (path.with_name(f".{path.name}.{end}") for end in ("part", "old"))
    with written(path):
        for left in (aside, before):
            shutil.rmtree(left, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            yield aside
            for file in filter(Path.is_file, aside.rglob("*")):
                with file.open("rb") as data:
                    os.fsync(data.fileno())
            if path.exists():
                path.replace(before)
            aside.replace(path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        shutil.rmtree(before, ignore_errors=True)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn what a failed write to ``path`` raises into a `WriteError` that names it."""
    try:
        yield
    except Exception as error:
        from safetensors import SafetensorError  # which is what its writer raises on a full disk

        if not isinstance(error, OSError | SafetensorError):
            raise
        reason = getattr(error, "strerror", None) or str(error).rpartition("I/O error: ")[2]
        raise WriteError(
            f"{path}: cannot be written ({reason}); make room there, or name another folder"
        ) from error


def _umask() -> int:
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON under ``path``, whole or not at all; NaN is refused."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def file_name(label: str) -> str:
    """A class name as a file name: anything but letters, digits, dot, dash and underscore becomes ``_``.

    It begins with none of dot and dash, which would hide it, or make an option of it on a command line.
    What is longer than file systems take beside our own parts is cut off, and ends in its hash.
    """
    name = re.sub(r"[^\w.-]", "_", label).lstrip(".-") or "_"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    ending = f"-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return name.encode()[: LONGEST_NAME - len(ending)].decode(errors="ignore") + ending


def require_distinct_files(labels: Sequence[str]) -> None:
    """Raise `UserError` when two class names give one file name, on any file system."""
    names: dict[str, str] = {}
    for label in labels:
        other = names.setdefault(file_name(label).casefold(), label)
        if other != label:
            raise UserError(f"classes {other!r} and {label!r} give the same file name; rename one")


def writable(folder: Path, option: str = "--output") -> None:
    """Make ``folder``; raise `WriteError` naming ``option`` when nothing can be written there."""
    if not storage.is_local(folder):
        storage.require_writable(folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # without a name, so that nothing stays of a killed run
            pass
    except OSError as error:
        raise WriteError(
            f"{option} {folder}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
