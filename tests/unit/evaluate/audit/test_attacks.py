"""The areas of membership inference, by hand, and what is said of them."""

import pytest

from evaluate.analysis.intervals import auc_interval, wilson
from evaluate.audit import attacks
from evaluate.audit.attacks import ALL, GAIN, attack, sentence, with_mean


def test_area_counts_pairs_with_ties_by_half_and_caught_counts_above_all_others():
    found = attack("a", GAIN, [3.0, 2.0, 1.0], [2.0, 0.0])
    # Of six pairs: 3 beats both, 2 ties and beats, 1 loses and beats.
    assert found.auc == pytest.approx((2 + 1.5 + 1) / 6)
    assert (found.members, found.others) == (3, 2)
    assert found.caught == pytest.approx(1 / 3)
    assert found.interval == pytest.approx(auc_interval(4.5 / 6, 3, 2))
    assert found.caught_interval == pytest.approx(wilson(1, 3))


def test_everything_given_away_is_one_and_nothing_is_a_half():
    everything = attack("a", GAIN, [float(k) for k in range(10, 30)], [float(k) for k in range(10)])
    assert (everything.auc, everything.caught) == (1.0, 1.0)
    assert "members are told from others" in sentence(everything)
    nothing = attack("a", GAIN, [0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    assert (nothing.auc, nothing.caught) == (0.5, 0.0)
    assert "not told from chance" in sentence(nothing)
    reverse = attack("a", GAIN, [float(k) for k in range(20)], [float(k) for k in range(20, 40)])
    assert "members score below others" in sentence(reverse)


def test_each_subject_keeps_its_own_scale_in_the_mean():
    first = attack("a", GAIN, [101.0, 99.0], [100.0, 98.0])
    second = attack("b", GAIN, [1.0, 3.0], [2.0, 0.0])
    *each, both = with_mean([first, second])
    assert [one.subject for one in (*each, both)] == ["a", "b", ALL]
    assert both.auc == pytest.approx((first.auc + second.auc) / 2)
    assert (both.members, both.others, both.caught) == (4, 4, pytest.approx(2 / 4))
    # Independent halves add in squares.
    halves = [one.auc - one.interval[0] for one in each]
    assert both.auc - both.interval[0] == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5 / 2)
    assert with_mean([first]) == [first]
    assert attacks.mean([first]).auc == first.auc
