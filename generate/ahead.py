"""Work in a thread of its own, a little ahead of whoever uses it."""

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import Any, TypeVar

Item = TypeVar("Item")
PATIENCE = 0.1
"""Seconds between two looks at whether anybody still wants the items."""


def ahead(items: Iterable[Item], depth: int, unwanted: threading.Event | None = None) -> Generator[Item]:
    """The items in their order, up to ``depth`` of them made in advance; 0 makes each when it is asked for.

    An error of the maker is raised here, after the items before it. When the user stops early the maker
    stops after the item it is at, or before where it looks at ``unwanted``, which is set then.
    """
    if depth == 0:
        yield from items
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    unwanted = unwanted or threading.Event()
    maker = threading.Thread(target=_make, args=(items, ready, unwanted), name="ahead", daemon=True)
    maker.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        unwanted.set()
        maker.join()


def _make(items: Iterable[Any], ready: "queue.Queue[tuple[str, Any]]", unwanted: threading.Event) -> None:
    try:
        for item in items:
            if not _put(("item", item), ready, unwanted):
                return
        _put(("end", None), ready, unwanted)
    except BaseException as error:  # whatever it is, the user's thread has to hear of it
        _put(("error", error), ready, unwanted)


def _put(message: tuple[str, Any], ready: "queue.Queue[tuple[str, Any]]", unwanted: threading.Event) -> bool:
    """Hand the message over; False when nobody wants it any more."""
    while not unwanted.is_set():
        with suppress(queue.Full):
            ready.put(message, timeout=PATIENCE)
            return True
    return False
