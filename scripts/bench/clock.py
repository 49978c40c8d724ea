"""Wall time of a piece of work, and how much of it a model took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Timing:
    """Wall seconds, and those of them in which the watched model was at work."""

    seconds: float
    inside: float

    @property
    def share(self) -> float:
        """Part of the time that the model took."""
        return self.inside / self.seconds


def timed(work: Callable[[], Any], model: nn.Module) -> Timing:
    """One call of ``work``; a compiled model is watched from outside."""
    inside, starts = [0.0], []
    before = model.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
    after = model.register_forward_hook(lambda *_: _add(inside, time.perf_counter() - starts.pop()))
    started = time.perf_counter()
    try:
        work()
        return Timing(time.perf_counter() - started, inside[0])
    finally:
        before.remove()
        after.remove()


def _add(total: list[float], seconds: float) -> None:
    total[0] += seconds
