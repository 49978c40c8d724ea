"""Files without a name, which go with the process however it ends."""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from orchard import memory
from orchard.errors import UserError
from orchard.files import atomic

SHARE = 0.5
"""Of the memory that is free: what takes more is kept on disk."""


def folder() -> Path:
    """The folder for such files: ``TMPDIR``, or one on a disk, which /tmp need not be.

    Raises:
        UserError: it cannot be written, or lies in memory itself.
    """
    on_disk = Path("/var/tmp")
    given = os.environ.get("TMPDIR")
    found = Path(given) if given else on_disk if on_disk.is_dir() else Path(tempfile.gettempdir())
    atomic.writable(found, "TMPDIR")
    if _in_memory(found.resolve()):
        raise UserError(
            f"{found}: lies in memory, of which images take more than {SHARE:.0%}; point TMPDIR to a folder "
            "on a disk"
        )
    return found


def _in_memory(path: Path) -> bool:
    import psutil

    mounts = [one for one in psutil.disk_partitions(all=True) if path.is_relative_to(one.mountpoint)]
    nearest = max(mounts, key=lambda one: len(one.mountpoint), default=None)
    return nearest is not None and nearest.fstype in ("tmpfs", "ramfs")


class Kept:
    """Many byte strings: in memory while all take at most `SHARE` of it, the rest in a file."""

    def __init__(self) -> None:
        self.room = int(SHARE * memory.free())
        self.file: IO[bytes] | None = None
        self.place = Path()

    def keep(self, data: bytes) -> Callable[[], bytes]:
        """What gives ``data`` back, from any thread or forked process.

        Raises:
            UserError: there is no folder for the file, or no room in it.
        """
        self.room -= len(data)
        if self.room >= 0:
            return partial(bytes, data)
        if self.file is None:
            self.place = folder()
            self.file = tempfile.TemporaryFile(dir=self.place)  # noqa: SIM115, since it stays open
        start = self.file.tell()
        with atomic.written(self.place):
            self.file.write(data)
            self.file.flush()
        return partial(_read, self.file, start, len(data))


def _read(file: IO[bytes], start: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, start)
