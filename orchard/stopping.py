"""SIGTERM as an exception, so that a run which is asked to stop cleans up as after Ctrl-C."""

import os
import signal
from types import FrameType


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt no error, so that nobody catches it as one."""


def on_terminate() -> None:
    """Raise `Terminated` when SIGTERM comes.

    Not in one of several processes: it may be waiting for the others, and would not hear the signal.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated


def code(stop: BaseException) -> int:
    """The exit code that a shell knows for what stopped the run: 128 + the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
