"""Files of one JSON value a line that only grow: records, the trials of a search, a person's decisions."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from orchard.errors import UserError
from orchard.files import checked_json, size_limits
from orchard.files.atomic import written


def each(path: Path) -> Iterator[Any]:
    """The values of the whole lines of a file, one by one; a last line cut off by a crash does not count.

    Raises:
        UserError: it cannot be read.
        ValueError: a line is no JSON.
    """
    size = 0
    with _readable(path) as file:
        while (line := _line(path, file)).endswith(b"\n"):
            size += len(line)
            if size > size_limits.RECORDS:
                raise UserError(f"{path}: larger than {size_limits.RECORDS} bytes; choose another folder")
            yield checked_json.parse(line)


def has_one(path: Path) -> bool:
    """Whether there is the file, and a whole line in it."""
    if not path.is_file():
        return False
    with _readable(path) as file:
        return _line(path, file).endswith(b"\n")


def _readable(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from None


def _line(path: Path, file: BinaryIO) -> bytes:
    try:
        return file.readline(size_limits.RECORDS)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error}); mend it or choose another folder")


def append(path: Path, value: object) -> None:
    """Add one line and see it to the disk; processes that share the file take turns.

    A last line cut off by a crash goes, and so does this one where it does not fit on the disk.

    Raises:
        WriteError: it cannot be written.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
    with written(path), path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            _write_all(file, line.encode())
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Unbuffered, a write may take a part of what it is given."""
    while data:
        data = data[file.write(data) :]
