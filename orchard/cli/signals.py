"""SIGTERM as an exception, so that a run cleans up as after Ctrl-C; and output whose reader may be gone."""

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from orchard import heartbeat

LAUNCHED = ("ACCELERATE_DYNAMO_MODE", "TORCHELASTIC_RUN_ID")
"""Variables that `accelerate launch` and torchrun give to the processes which they start."""
PR_SET_PDEATHSIG = 1
"""linux/prctl.h: the signal to get when the parent dies."""
KEEPING = 20.0
"""Seconds for storing what is finished, once another process is lost."""

_command = False
_lost = False
"""Whether it is the loss of another process that stops this one."""


def is_command() -> bool:
    """Whether this process is one of our commands, not a notebook or program whose signals are its own."""
    return _command


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt no error, so that nobody catches it as one."""


def on_terminate() -> None:
    """Raise `Terminated` when SIGTERM comes, once: whoever cleans up is left in peace.

    Not in one of several processes: it may be waiting for the others, and would not hear the signal.
    """
    global _command
    _command = True
    heartbeat.on_lost = end_without
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        signal.signal(signal.SIGTERM, _raise)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _raise)


@contextmanager
def heard() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` in one of several processes too; none may wait for the others."""
    if not is_command():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _raise:
            signal.signal(signal.SIGTERM, before)


def end_without(lost: str) -> None:
    """End this process from one of its threads: another one is ``lost``. What is `heard` may keep its work.

    The main thread may be waiting for the lost one, and then does not come back.
    """
    global _lost
    handler, main = signal.getsignal(signal.SIGTERM), threading.main_thread()
    if handler is _nothing:  # it was stopped before, and so perhaps were the others, which were done sooner
        main.join()
    print(f"error: {lost}", file=sys.stderr, flush=True)
    if handler is _raise:
        assert main.ident
        _lost = True
        signal.pthread_kill(main.ident, signal.SIGTERM)
        main.join(KEEPING)
    leave(heartbeat.CODE)


def leave(code: int) -> NoReturn:
    """End without the interpreter's own end, in which torch would wait for the other processes."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _raise(number: int, frame: FrameType | None) -> None:
    # After Ctrl-C in a terminal a launcher dies first, and its death is the next signal. SIG_IGN would do,
    # but where both have come before either is handled, the interpreter prints a traceback of it.
    signal.signal(signal.SIGTERM, _nothing)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _nothing(number: int, frame: FrameType | None) -> None:
    """Whoever cleans up is left in peace."""


def end_with_launcher() -> None:
    """Get SIGTERM when the launcher dies that has started this process, if one has.

    Raises:
        Terminated: it is dead already.
    """
    if not any(name in os.environ for name in LAUNCHED):
        return
    parent = os.getppid()
    if _is_adopted(parent):
        raise Terminated
    end_with(parent)


def _is_adopted(parent: int) -> bool:
    """Whether a process that a launcher has started belongs to ``parent`` since the launcher's death."""
    session = os.getsid(0)
    if session != os.getpid():  # `accelerate launch` shares its session, which who adopts hardly ever does
        return os.getsid(parent) != session
    # torchrun begins a session for each process, and starts them by its own interpreter.
    own, theirs = (Path("/proc", str(number), "exe") for number in (os.getpid(), parent))
    return own.exists() and _program(theirs) != _program(own)


def _program(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:  # of another user, or gone
        return None


def end_with(parent: int) -> None:
    """Get SIGTERM when the process ``parent`` dies, which has started this one; only Linux can do that.

    Raises:
        Terminated: it is dead already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise Terminated


def code(stop: BaseException) -> int:
    """The exit code of what stopped the run: 128 + the signal's number, as shells have it, or of a loss."""
    if _lost:
        return heartbeat.CODE
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


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
