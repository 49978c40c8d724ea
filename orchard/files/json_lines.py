"""Files of one JSON value a line that only grow: records, the trials of a search, a person's decisions."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from orchard.errors import UserError
from orchard.files import checked_json, size_limits
from orchard.files.atomic import written


def read(path: Path) -> list[Any]:
    """The values of the whole lines of a file; a last line cut off by a crash does not count.

    Raises:
        UserError: it cannot be read.
        ValueError: a line is no JSON.
    """
    try:
        data = checked_json.read_bytes(path, size_limits.RECORDS)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); mend it or choose another folder") from None
    return [checked_json.parse(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def append(path: Path, value: object) -> None:
    """Add one line and see it to the disk; processes that share the file take turns.

    A last line cut off by a crash goes, and so does this one where it does not fit on the disk.

    Raises:
        WriteError: it cannot be written.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
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
