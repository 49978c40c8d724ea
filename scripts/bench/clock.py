"""Wall time of a piece of work, and how much of it a model took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Timing:
    """Wall seconds, and those of them in which the watched model was at work; None when none was watched."""

    seconds: float
    inside: float | None

    @property
    def share(self) -> str:
        """Part of the time that the model took."""
        return "not measured" if self.inside is None else f"{self.inside / self.seconds:.1%}"


def timed(work: Callable[[], Any], model: nn.Module | None = None) -> Timing:
    """One call of ``work``; watching a compiled model would compile it anew."""
    if model is None:
        started = time.perf_counter()
        work()
        return Timing(time.perf_counter() - started, None)
    with _watched(model) as calls:
        seconds = timed(work).seconds
    return Timing(seconds, sum(calls))


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[float]]:
    """Seconds of each call of the model while the context lasts."""
    calls: list[float] = []
    starts: list[float] = []
    before = model.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
    after = model.register_forward_hook(lambda *_: calls.append(time.perf_counter() - starts.pop()))
    try:
        yield calls
    finally:
        before.remove()
        after.remove()
