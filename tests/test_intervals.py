"""Intervals against closed forms and published examples."""

import math
import statistics as stdlib

import numpy as np
import pytest
from scipy.stats import norm

from evaluate.intervals import (
    bootstrap_difference,
    mean_and_spread,
    paired_difference,
    resampled_means,
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


@pytest.mark.parametrize(
    ("better", "worse", "n", "confidence", "published"),
    [
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850-2875: airway
        # hyper-responsiveness before and after stem cell transplantation.
        (1, 7, 21, 0.95, (-0.517, -0.026)),
        # Tango 1998, Statistics in Medicine 17:891-908: two disinfections of soft contact lenses.
        (1, 0, 44, 0.90, (-0.037, 0.096)),
        # Agresti, Categorical Data Analysis, section 10.1: approval in two surveys of 1600.
        (86, 150, 1600, 0.95, (-0.059, -0.021)),
    ],
)
def test_score_interval_of_a_paired_difference_matches_published_examples(
    better, worse, n, confidence, published
):
    assert paired_difference(better, worse, n, confidence) == pytest.approx(published, abs=1e-3)


def test_classifiers_that_never_differ_still_have_an_interval():
    """Without differing images the score equation is n d^2 = z^2 |d| (1 - |d|)."""
    z2, n = float(norm.ppf(0.975)) ** 2, 55
    assert paired_difference(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))


def test_swapping_the_classifiers_mirrors_the_interval():
    low, high = paired_difference(2, 9, 60)
    assert paired_difference(9, 2, 60) == pytest.approx((-high, -low))


def test_interval_ends_where_every_image_differs():
    assert paired_difference(0, 20, 20)[0] == -1.0
    assert paired_difference(20, 0, 20)[1] == 1.0


def test_counts_that_do_not_fit_are_refused():
    for better, worse, n in ((-1, 0, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="better"):
            paired_difference(better, worse, n)


def test_spread_is_the_sample_deviation_and_none_for_one_run():
    values = [0.9, 0.95, 0.7]
    assert mean_and_spread(values) == pytest.approx((stdlib.mean(values), stdlib.stdev(values)))
    assert mean_and_spread([0.9]) == (0.9, None)


def test_undefined_value_makes_the_mean_undefined():
    assert mean_and_spread([0.9, None]) == (None, None)
    assert mean_and_spread([]) == (None, None)


def test_bootstrap_interval_is_near_the_normal_one_for_many_images():
    rng = np.random.default_rng(1)
    a, b = (rng.random((1, 400)) < 0.7).astype(float), (rng.random((1, 400)) < 0.8).astype(float)
    difference = (b - a)[0]
    half = 1.96 * difference.std(ddof=1) / math.sqrt(400)
    low, high = bootstrap_difference(a, b)
    assert low == pytest.approx(difference.mean() - half, abs=0.012)
    assert high == pytest.approx(difference.mean() + half, abs=0.012)


def test_bootstrap_draws_seeds_too():
    """Seeds that disagree on every image: with S seeds the mean over seeds has variance p(1-p)/S."""
    a = np.zeros((4, 50))
    b = np.repeat([[1.0], [1.0], [0.0], [0.0]], 50, axis=1)
    means = resampled_means([b - a])[:, 0]
    assert means.std() == pytest.approx(math.sqrt(0.25 / 4), rel=0.05)


def test_resamples_are_the_same_in_every_arm():
    arm = (np.random.default_rng(2).random((3, 30)) < 0.6).astype(float)
    means = resampled_means([arm, arm])
    assert (means[:, 0] == means[:, 1]).all()


def test_bootstrap_leaves_out_images_a_run_did_not_test():
    a, b = np.array([[1.0, np.nan], [np.nan, 1.0]]), np.array([[0.0, np.nan], [np.nan, 0.0]])
    assert bootstrap_difference(a, b) == (-1.0, -1.0)
    assert bootstrap_difference(a, a) is None
