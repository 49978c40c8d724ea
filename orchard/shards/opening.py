"""A shard's file, open: whole, and the one that the manifest names."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.files import checked_json, storage
from orchard.shards import contents

MANIFEST = "manifest.json"


@contextmanager
def parquet(path: Path, sha256: str | None = None) -> Iterator[Any]:
    """The file as a `pyarrow.parquet.ParquetFile`; given a hash, only if it is the one with that hash.

    Raises:
        UserError: another file, or what is wrong with it, also while it is read.
    """
    import pyarrow.parquet as pq

    with named(path), _file(path, whole=sha256 is not None) as file:
        if sha256 is not None:
            _require(path, file, sha256)
            file.seek(0)
        yield pq.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def _file(path: Path, *, whole: bool) -> Iterator[Any]:
    """The open file; behind a URL a ``whole`` one comes over once, however often it is then read."""
    if whole and not storage.is_local(path):
        yield io.BytesIO(checked_json.read_bytes(path, contents.LARGEST))
    else:
        with path.open("rb") as file:
            yield file


def require_hash(path: Path, sha256: str) -> None:
    """Raise `UserError` unless the file is the one with that hash."""
    with named(path), path.open("rb") as file:
        _require(path, file, sha256)


def _require(path: Path, file: Any, sha256: str) -> None:
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
        raise another(path)


def another(path: Path) -> UserError:
    """What is said of a file that is not the shard of the manifest under its name."""
    return UserError(
        f"{path}: not the shard that {MANIFEST} names, so altered or of another set; delete it and run "
        "generate again, which samples its rows anew"
    )


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into a `UserError` that names it."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        # Arrow says it in several lines.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"{path}: not a whole shard ({reason}); delete it and run generate again") from None
