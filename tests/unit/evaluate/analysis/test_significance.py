"""Tests and power against scipy, published examples and plain enumeration."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial
from statsmodels.stats.multitest import multipletests

from evaluate.analysis.significance import (
    holm,
    images_needed,
    likely_loss,
    mcnemar_exact,
    power,
    smallest_detectable,
)


def pair(only_a: int, only_b: int, both: int = 10, neither: int = 3):
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(6, 0), (5, 0), (7, 2), (1, 1)])
def test_mcnemar_is_a_sign_test_on_the_images_where_they_differ(only_a, only_b):
    assert mcnemar_exact(*pair(only_a, only_b)) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)


@pytest.mark.parametrize(("only_a", "only_b", "published"), [(1, 7, 0.0703), (6, 16, 0.0525)])
def test_mcnemar_matches_the_published_examples(only_a, only_b, published):
    """Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91, exact conditional test."""
    assert mcnemar_exact(*pair(only_a, only_b)) == pytest.approx(published, abs=5e-5)


def test_classifiers_that_never_differ_have_p_one():
    assert mcnemar_exact([True, False], [True, False]) == 1.0


def test_holm_multiplies_the_smallest_p_most_and_never_falls():
    # 4 x .005, 3 x .01, 2 x .03, then .04, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_arms_without_a_p_do_not_count_as_comparisons():
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([None]) == [None]
    for count in (1, 2, 7, 40):
        values = np.random.default_rng(count).beta(0.4, 2.0, count).round(2)
        assert holm(values.tolist()) == pytest.approx(multipletests(values, method="holm")[1].tolist())
    assert holm([]) == []


def test_six_to_nothing_is_the_smallest_difference_55_images_resolve():
    least = smallest_detectable(55)
    assert least.pairs == 6
    assert least.top == pytest.approx(49 / 55)
    assert least.points == pytest.approx(600 / 55)
    assert binomtest(6, 6).pvalue <= 0.05 < binomtest(5, 5).pvalue


def test_five_images_resolve_nothing():
    few = smallest_detectable(5)
    assert (few.points, few.top, few.likely_points) == (None, None, None)
    assert smallest_detectable(6).top == 0.0


def test_power_is_the_sum_over_every_table_that_can_come_out():
    n, losses, gains = 8, 0.6, 0.05
    found = 0.0
    for lost, won in itertools.product(range(n + 1), repeat=2):
        if 0 < lost + won <= n and binomtest(lost, lost + won).pvalue <= 0.05:
            found += multinomial.pmf([lost, won, n - lost - won], n, [losses, gains, 1 - losses - gains])
    assert power(n, losses, gains) == pytest.approx(found)


def test_no_difference_is_found_no_more_often_than_one_time_in_twenty():
    assert power(200, 0.0) == 0.0
    assert 0 < power(200, 0.1, 0.1) <= 0.05


def test_a_loss_that_is_likely_to_be_found_gives_that_chance():
    assert power(55, likely_loss(55)) == pytest.approx(0.8)
    assert smallest_detectable(55).likely_points == pytest.approx(100 * likely_loss(55))


def test_images_needed_is_the_first_number_that_is_enough():
    n = images_needed(0.05)
    assert power(n, 0.05) >= 0.8 > power(n - 1, 0.05)
    assert images_needed(1e-5) is None
