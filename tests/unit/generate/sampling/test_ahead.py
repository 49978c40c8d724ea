"""A maker in a thread of its own: order kept, little made in advance, errors heard, stopped with its user."""

import threading
import time

import pytest

from generate.sampling.sampler import prefetch


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_their_order(depth):
    assert list(prefetch(iter(range(50)), depth)) == list(range(50))


def test_items_are_made_elsewhere_while_the_user_works():
    makers = set(prefetch((threading.current_thread() for _ in range(3)), 1))
    assert threading.main_thread() not in makers


def test_little_is_made_in_advance():
    made = []
    items = prefetch((made.append(k) or k for k in range(100)), 2)
    assert next(items) == 0
    time.sleep(0.3)
    # One is with the user, two wait, and one is in the maker's hands.
    assert len(made) <= 4
    items.close()


@pytest.mark.parametrize("depth", [0, 1])
def test_an_error_comes_after_the_items_before_it(depth):
    def items():
        yield 1
        raise ValueError("no more")

    found = prefetch(items(), depth)
    assert next(found) == 1
    with pytest.raises(ValueError, match="no more"):
        next(found)


def test_the_maker_stops_with_its_user():
    before = threading.active_count()
    items = prefetch(iter(range(1000)), 1)
    assert next(items) == 0
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before
