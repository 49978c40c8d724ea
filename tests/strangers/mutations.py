"""Files as strangers may hand them over: good ones damaged at random, and JSON with one wrong place."""

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from orchard.errors import UserError

SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)
ODD = (
    *(None, True, 0, -1, 1.5, 2**31, 2**63, 2**64, 10**400, -(2**80), float("inf"), float("nan")),
    *("", "x", "\x00", "../x", "/etc/passwd", "\ud800", "a\nb", "<b>", [], [[]], {}, {"x": 1}, ["x", 1]),
)
"""Values that are of the wrong type, size or meaning nearly everywhere."""


def fuzz(examples: int) -> settings:
    """The same examples in every run, none kept on disk."""
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=SLOW
    )


def works_or_refuses(read: Callable[[], Any]) -> Any:
    """What ``read`` gives; None after a `UserError` of one printable line. Anything else is a defect."""
    try:
        return read()
    except UserError as error:
        line = str(error)
        assert line.isprintable(), ascii(line)
        assert len(line) < 2000, line[:200]
        return None


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """``whole`` cut off, with bytes changed, left out, or put in."""
    place = st.integers(0, max(len(whole) - 1, 0))
    few = st.binary(min_size=1, max_size=8)
    return st.one_of(
        place.map(lambda i: whole[:i]),
        st.tuples(place, few).map(lambda x: whole[: x[0]] + x[1] + whole[x[0] + len(x[1]) :]),
        st.tuples(place, few).map(lambda x: whole[: x[0]] + x[1] + whole[x[0] :]),
        st.tuples(place, st.integers(1, 64)).map(lambda x: whole[: x[0]] + whole[x[0] + x[1] :]),
        st.tuples(place, st.integers(1, 64)).map(
            lambda x: whole[: x[0]] + bytes(x[1]) + whole[x[0] + x[1] :]
        ),
    )


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """A JSON value like ``whole``, one place of it gone or holding something else."""
    value = copy.deepcopy(whole)
    places = [(None, None), *_places(value)]
    holder, key = draw(st.sampled_from(places))
    odd = draw(st.sampled_from(ODD))
    if holder is None:
        return odd
    if draw(st.booleans()) or isinstance(holder, list):
        holder[key] = odd
    else:
        del holder[key]
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in pairs] + [place for _, item in pairs for place in _places(item)]
