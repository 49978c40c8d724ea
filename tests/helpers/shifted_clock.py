"""A wall clock that can be made to jump; import it before anything takes hold of the real one."""

import random
import time

YEARS = 10 * 365 * 24 * 3600.0
_time, _time_ns = time.time, time.time_ns
_chance: list[random.Random] = []


def jump(seed: int) -> None:
    """From now on every look at the clock finds it years back or forth."""
    _chance.append(random.Random(seed))


def _shift() -> float:
    return _chance[-1].uniform(-YEARS, YEARS) if _chance else 0.0


time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + int(1e9 * _shift())
