"""One run at a time may write a folder, one process at a time a shared file."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchard import storage
from orchard.errors import UserError


@contextmanager
def writing(folder: Path, state: Any, option: str = "--output") -> Iterator[None]:
    """Hold the folder for the processes of this run (an `accelerate.PartialState` each).

    The system lets go of the lock when the last of them ends, however it ends. A folder behind a URL is
    held against other runs on this machine only.

    Raises:
        UserError: another run is writing there; ``option`` names the folder.
    """
    handle = os.open(_lockable(folder), os.O_RDONLY)
    try:
        if state.is_main_process:
            # Nobody else may be there; then the lock is shared with the other processes of this run.
            _take(handle, fcntl.LOCK_EX, folder, option)
            _take(handle, fcntl.LOCK_SH, folder, option)
        state.wait_for_everyone()
        _take(handle, fcntl.LOCK_SH, folder, option)
        yield
    finally:
        os.close(handle)


def _take(handle: int, kind: int, folder: Path, option: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{option} {folder}: another run is writing there; wait until it ends, or choose another {option}"
        ) from None
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be locked ({error.strerror}); choose another") from None


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other process has its turn in ``folder``.

    A process that dies gives its turn up. Where the file system knows no locks nobody waits.
    """
    # Not the file itself: its writer may put another one in its place.
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lockable(folder: Path) -> Path:
    """The folder itself, or one of this machine that stands for a URL."""
    if storage.is_local(folder):
        return folder
    stand_in = hashlib.sha256(str(folder).encode()).hexdigest()
    local = Path(tempfile.gettempdir()) / "orchard-locks" / stand_in
    local.mkdir(parents=True, exist_ok=True)
    return local
