"""Intervals against closed forms and published examples."""

import math
import statistics as stdlib

import experiments
import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp
from sklearn.metrics import roc_auc_score

from evaluate.analysis.intervals import (
    accuracy_interval,
    auc_interval,
    difference_interval,
    mean_and_spread,
    p_below,
    p_of_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "published"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_matches_the_published_examples(successes, n, published):
    """Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3."""
    assert wilson(successes, n) == pytest.approx(published, abs=5e-5)


def test_wilson_interval_matches_the_closed_form():
    k, n, z = 53, 55, stdlib.NormalDist().inv_cdf(0.975)
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


def test_wilson_interval_of_a_perfect_score_has_width_and_stays_within_one():
    low, high = wilson(55, 55)
    assert 0.9 < low < 1.0
    assert high == 1.0


def test_wilson_refuses_a_count_that_is_no_proportion():
    for successes, n in ((0, 0), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)


def differing(better, worse, n, seeds=1):
    """(seeds, n) differences between two arms, the same in every seed."""
    return np.tile(np.repeat([1.0, -1.0, 0.0], [better, worse, n - better - worse]), (seeds, 1))


@pytest.mark.parametrize(("better", "worse", "n"), [(1, 7, 21), (1, 0, 44), (86, 150, 1600), (0, 0, 55)])
def test_one_seed_has_the_adjusted_wald_interval_of_a_paired_difference(better, worse, n):
    """Bonett and Price 2012, formula 4: one image more on either side."""
    p, q = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = float(norm.ppf(0.975)) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert difference_interval(differing(better, worse, n)) == pytest.approx((p - q - half, p - q + half))


def test_adjusted_wald_interval_is_near_the_published_score_interval():
    """Agresti, Categorical Data Analysis, section 10.1: approval in two surveys of 1600."""
    assert difference_interval(differing(86, 150, 1600)) == pytest.approx((-0.059, -0.021), abs=1e-3)


def test_swapping_the_classifiers_mirrors_the_interval_and_keeps_p():
    differences = differing(2, 9, 60, seeds=3)
    low, high = difference_interval(differences)
    assert difference_interval(-differences) == pytest.approx((-high, -low))
    assert p_of_difference(-differences) == pytest.approx(p_of_difference(differences))


def test_interval_ends_where_every_image_differs():
    assert difference_interval(differing(0, 20, 20))[0] == -1.0
    assert difference_interval(differing(20, 0, 20))[1] == 1.0


def test_where_seeds_differ_and_images_are_many_the_interval_is_students_t():
    shifts = np.array([0.02, 0.05, 0.01, 0.07])
    rows = np.repeat(shifts[:, None], 200_000, axis=1)
    expected = ttest_1samp(shifts, 0).confidence_interval(0.95)
    assert difference_interval(rows) == pytest.approx((expected.low, expected.high), abs=1e-3)
    assert p_of_difference(rows) == pytest.approx(ttest_1samp(shifts, 0).pvalue, rel=0.02)


def test_seeds_that_agree_change_nothing():
    assert difference_interval(differing(3, 5, 60, seeds=4)) == pytest.approx(
        difference_interval(differing(3, 5, 60))
    )
    right = np.tile(np.arange(40) % 8 != 0, (3, 1)).astype(float)
    assert accuracy_interval(right) == pytest.approx(wilson(35, 40))


def test_p_and_interval_say_the_same():
    differences = np.random.default_rng(0).choice([-1.0, 0, 0, 0, 1], (5, 200)) - 0.01
    low, high = difference_interval(differences)
    assert p_below(differences, low) == pytest.approx(0.025)
    assert p_below(-differences, -high) == pytest.approx(0.025)
    for confidence in (0.5, 0.9, 0.99):
        end = difference_interval(differences, confidence)[0]
        assert p_below(differences, end) == pytest.approx((1 - confidence) / 2)
    assert p_below(differences, 0.5) > 0.99
    assert p_of_difference(differing(0, 0, 30, seeds=3)) == 1.0


def test_images_that_a_seed_did_not_test_are_left_out():
    gaps = np.array([[1.0, np.nan], [np.nan, 0.0]])
    assert difference_interval(gaps)[0] < 0.5 < difference_interval(gaps)[1]
    empty = np.vstack([differing(1, 2, 30), np.full(30, np.nan)])
    assert difference_interval(empty) == pytest.approx(difference_interval(differing(1, 2, 30)))


CASES = [(name, seeds, images) for name in experiments.ARMS for seeds in (2, 3, 5) for images in (55, 275)]


@pytest.mark.parametrize(("name", "seeds", "images"), CASES)
def test_intervals_hold_as_often_as_they_say(name, seeds, images):
    """400 experiments each: of 95% intervals 366 or more hold in 998 cases of 1000 (binomial)."""
    arms, held = experiments.ARMS[name], {"difference": 0, "accuracy": 0}
    before, after = arms.truth
    for a, b in arms.experiments(seeds, images, 400):
        low, high = difference_interval(b - a)
        held["difference"] += low <= after - before <= high
        low, high = accuracy_interval(b)
        held["accuracy"] += low <= after <= high
    assert min(held.values()) >= 366, held


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.035, 0.05])
def test_intervals_hold_for_losses_that_few_images_show(loss):
    """Where most experiments see none to three images turn, a bootstrap has next to nothing to draw from."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        rows = np.tile(-(rng.random(55) < loss).astype(float), (3, 1))
        low, high = difference_interval(rows)
        held += low <= -loss <= high
    assert held >= 366, held


def test_an_area_of_one_has_an_interval_and_more_images_narrow_it():
    few, many = (auc_interval(1.0, count, count) for count in (5, 50))
    assert few[1] == many[1] == 1.0
    assert 0.5 < few[0] < many[0] < 1.0
    assert auc_interval(0.0, 5, 5) == pytest.approx((0.0, 1 - few[0]))


@pytest.mark.parametrize(("count", "shift"), [(5, 0.0), (20, 0.0), (20, 1.5), (100, 0.5)])
def test_the_interval_of_an_area_holds_as_often_as_it_says(count, shift):
    rng, truth = np.random.default_rng(2), norm.cdf(shift / math.sqrt(2))
    sides = np.repeat([0, 1], count)
    held = 0
    for _ in range(400):
        scores = rng.normal(size=2 * count) + shift * sides
        low, high = auc_interval(float(roc_auc_score(sides, scores)), count, count)
        held += low <= truth <= high
    assert held >= 366, held


def test_spread_is_the_sample_deviation_and_none_for_one_run():
    values = [0.9, 0.95, 0.7]
    assert mean_and_spread(values) == pytest.approx((stdlib.mean(values), stdlib.stdev(values)))
    assert mean_and_spread([0.9]) == (0.9, None)


def test_undefined_value_makes_the_mean_undefined():
    assert mean_and_spread([0.9, None]) == (None, None)
    assert mean_and_spread([]) == (None, None)
