"""How far a classifier's probabilities can be believed."""

import numpy as np

BINS = 15
FLOOR = 1e-12
"""A probability of 0 for the truth would make the mean infinite, which JSON has no number for."""


def negative_log_likelihood(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """(N,) places of the true class, (N, K) probabilities -> mean of -log p(truth), in nats."""
    assert len(truth) == len(probabilities) >= 1, (len(truth), len(probabilities))
    given = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(given, FLOOR)).mean())


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """(N,), (N, K) -> mean |accuracy - confidence| over equal bins of confidence, 0 to 1. Guo et al. 2017.

    Bins are open below and closed above, as in the paper. With few images a bin holds one or two and
    the error is biased upwards: compare it between arms of one test set alone.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    # Rounded first, so that a confidence of 0.2 in floats falls into the bin that ends there.
    places = np.ceil(np.round(confidence * bins, 9)).astype(int).clip(1, bins)
    gaps = np.bincount(places, weights=right - confidence, minlength=bins + 1)
    return float(np.abs(gaps).sum() / len(truth))
