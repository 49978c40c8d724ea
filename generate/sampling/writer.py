"""Writing in a thread of its own, so that sampling does not wait for a disk."""

from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

WAITING = 1
"""Shards that wait to be written at most while another one is sampled; their images take memory."""


class Writer:
    """Does one thing after the other in a thread; leaving it waits for all of them, whatever the reason."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, "writer")
        self.begun: deque[Future[None]] = deque()

    def __enter__(self) -> "Writer":
        return self

    def put(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have it done after what was put before; returns at once."""
        self.begun.append(self.thread.submit(work, *arguments))

    def check(self, *, wait: bool = False) -> None:
        """Raise what went wrong so far; with ``wait`` after no more than `WAITING` are left to be done."""
        while self.begun and (self.begun[0].done() or (wait and len(self.begun) > WAITING)):
            futures.wait([self.begun[0]])  # and only then it is let go of: a signal may come here
            self.begun.popleft().result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not for the thread: after a signal Python 3.11 takes it for one that has ended.
        try:
            futures.wait(self.begun)
        except BaseException:  # what is sampled is written nevertheless
            futures.wait(self.begun)
            raise
        finally:
            self.thread.shutdown(wait=False)
        for one in self.begun:
            one.result()
