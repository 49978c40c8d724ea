"""One run at a time may write a folder, one process at a time a shared file."""

import fcntl
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchard.errors import UserError
from orchard.files import storage

if TYPE_CHECKING:
    from accelerate import PartialState

TOKEN = ".processes-"
PATIENCE = 4.0
"""Seconds that a process waits to see what another one has written."""


@contextmanager
def writing(folder: Path, state: "PartialState", option: str = "--output") -> Iterator[None]:
    """Hold the folder for the processes of this run.

    The system lets go of the lock when the last of them ends, however it ends. A folder behind a URL is
    held against other runs on this machine only.

    Raises:
        UserError: another run is writing there, or the processes do not all see one folder; ``option`` names
            the folder.
    """
    handle = os.open(_lockable(folder), os.O_RDONLY)
    try:
        if state.is_main_process:
            # Nobody else may be there; then the lock is shared with the other processes of this run.
            _take(handle, fcntl.LOCK_EX, folder, option)
            _take(handle, fcntl.LOCK_SH, folder, option)
        state.wait_for_everyone()
        _take(handle, fcntl.LOCK_SH, folder, option)
        _require_common(folder, state, option)
        yield
    finally:
        os.close(handle)


def _require_common(folder: Path, state: "PartialState", option: str) -> None:
    """Raise `UserError` in every process unless all see what the first one writes there."""
    if state.num_processes == 1 or not storage.is_local(folder):  # a URL is the same everywhere
        return
    from accelerate.utils import broadcast_object_list, gather_object

    (name,) = broadcast_object_list([f"{TOKEN}{secrets.token_hex(8)}"])
    if state.is_main_process:
        (folder / name).touch()
    state.wait_for_everyone()
    blind = gather_object([] if _appears(folder / name) else [state.process_index])
    if state.is_main_process:
        for left in folder.glob(f"{TOKEN}*"):  # also by a run that was killed here
            storage.remove(left)
    if blind:
        raise UserError(
            f"{option} {folder}: what process 0 writes there is not seen by process "
            f"{', '.join(map(str, blind))} of {state.num_processes}; name a folder on a disk that they all "
            "share, or run one process"
        )


def _appears(path: Path) -> bool:
    """Whether the file is there, or comes within `PATIENCE`: a network's file system may take a moment."""
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(PATIENCE / 20)
    return True


def _take(handle: int, kind: int, folder: Path, option: str) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{option} {folder}: another run is writing there, or a review is open; wait until "
            f"it ends, or choose another {option}"
        ) from None
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be locked ({error.strerror}); choose another") from None


@contextmanager
def reading(folder: Path, option: str) -> Iterator[None]:
    """Keep runs that would write there away from a folder that is being read; readers do not exclude others.

    Raises:
        UserError: a run is writing there; ``option`` names the folder.
    """
    handle = os.open(_lockable(folder), os.O_RDONLY)
    try:
        _take(handle, fcntl.LOCK_SH, folder, option)
        yield
    finally:
        os.close(handle)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
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
