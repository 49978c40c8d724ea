"""Folders by name: local, or behind any fsspec URL such as s3://bucket/set and hf://datasets/me/set."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from orchard.errors import UserError


def location(name: str | Path) -> Path:
    """The folder called ``name``; one behind a URL has the methods of a `Path` too.

    Raises:
        UserError: the URL's kind is not known, or the package that serves it is not installed.
    """
    if "://" not in str(name):
        return Path(name).expanduser()
    from upath import UPath

    try:
        found = UPath(str(name))
        found.fs  # noqa: B018 - finds the package that serves the URL
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name}: no folder can be reached that way ({reason})") from None
    return cast(Path, found)


def is_local(path: Path) -> bool:
    """Whether the path lies in this machine's file system."""
    return isinstance(path, Path)


def refresh(folder: Path) -> None:
    """Forget earlier listings of a folder behind a URL: another process may have written there."""
    if not is_local(folder):
        cast(Any, folder).fs.invalidate_cache()


@contextmanager
def uploaded(path: Path) -> Iterator[Path]:
    """A local file to write to; it is put under ``path``, behind a URL, in one request once it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / path.name
        yield aside
        with reached(path):
            remote = cast(Any, path)
            remote.fs.put_file(str(aside), remote.path)


def remove(path: Path) -> None:
    """Delete a file if it is there; behind a URL by its file system, since paths of some kinds only read."""
    if is_local(path):
        path.unlink(missing_ok=True)
    elif path.is_file():
        with reached(path):
            cast(Any, path).fs.rm(cast(Any, path).path)


def require_writable(folder: Path) -> None:
    """Raise `UserError` when nothing can be written to a folder behind a URL."""
    probe = folder / f".probe-{os.getpid()}"
    with uploaded(probe) as aside:
        aside.write_bytes(b"")
    remove(probe)


@contextmanager
def reached(path: Path) -> Iterator[None]:
    """Turn whatever a URL's file system raises into a `UserError` with its reason."""
    try:
        yield
    except Exception as error:  # each file system has exceptions of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"{path}: cannot be reached ({reason}); check the address and your access") from None
