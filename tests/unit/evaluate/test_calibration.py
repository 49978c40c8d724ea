"""Calibration against worked examples and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from evaluate.metrics import expected_calibration_error, negative_log_likelihood

RNG = np.random.default_rng(5)
PROBABILITIES = RNG.dirichlet([1, 1, 1], size=200)
TRUTH = RNG.integers(3, size=200)


def test_negative_log_likelihood_is_scikit_learns_log_loss():
    assert negative_log_likelihood(TRUTH, PROBABILITIES) == pytest.approx(log_loss(TRUTH, PROBABILITIES))


def test_a_truth_given_no_chance_stays_finite():
    assert np.isfinite(negative_log_likelihood(np.array([1]), np.array([[1.0, 0.0]])))


def test_error_of_three_images_worked_out_by_hand():
    # Bins of a tenth: 0.95 right and 0.91 wrong share one (half right, mean 0.93), 0.6 right has its own.
    p = np.array([[0.95, 0.05], [0.91, 0.09], [0.6, 0.4]])
    error = expected_calibration_error(np.array([0, 1, 0]), p, bins=10)
    assert error == pytest.approx((2 * abs(0.5 - 0.93) + 1 * abs(1 - 0.6)) / 3)


def test_bins_are_closed_above():
    # 0.6 belongs to the bin that ends there, 0.61 to the next: two errors that do not cancel.
    p = np.array([[0.6, 0.4], [0.61, 0.39]])
    assert expected_calibration_error(np.array([0, 1]), p, bins=10) == pytest.approx((0.4 + 0.61) / 2)


def test_sure_and_right_is_perfectly_calibrated():
    assert expected_calibration_error(np.array([0, 1]), np.eye(2)) == 0.0


def test_error_is_the_mean_gap_over_bins():
    confidence, right = PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == TRUTH
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(TRUTH, PROBABILITIES) == pytest.approx(total / 200)
