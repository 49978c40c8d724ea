"""Output whose reader may be gone: ``python -m generate --help | head -1`` ends as other Unix tools do."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CODE = 128 + signal.SIGPIPE
"""What shells report of a program that a closed pipe has ended."""


@contextmanager
def closing() -> Iterator[None]:
    """End the program without a word, with `CODE`, once the reader of its output is gone.

    What cannot be encoded is written with backslashes: names of files may be in any encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _reader_is_gone(stream)]
        if not gone:  # a pipe or a socket of somebody else
            raise
        for stream in gone:
            # The interpreter flushes it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(CODE) from None


def _reader_is_gone(stream: Any) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
