"""Intervals of a proportion, of a mean over runs, and of the difference between two arms."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]
CONFIDENCE = 0.95
RESAMPLES = 2000


class Spread(NamedTuple):
    """Mean and sample standard deviation over runs; `None` where undefined."""

    mean: float | None
    sd: float | None


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a proportion, both ends from 0 to 1. Wilson 1927, without continuity correction.

    Raises:
        ValueError: ``n`` below 1, or successes outside 0 to ``n``.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def mean_and_spread(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation (n - 1) of values in one unit.

    One value has no deviation. One undefined value makes the mean undefined: leaving it out would
    average over the runs in which the metric happened to exist.
    """
    listed = list(values)
    numbers = [value for value in listed if value is not None]
    if not numbers or len(numbers) < len(listed):
        return Spread(None, None)
    return Spread(float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None)


def paired_difference(better: int, worse: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a paired difference of proportions, -1 to 1. Tango 1998, section 3.

    ``better`` and ``worse`` of ``n`` images are right in the second classifier alone and in the first
    alone. It keeps its width where the two never differ: agreement on few images proves little.

    Raises:
        ValueError: negative counts, or more differing images than there are.
    """
    if n < 1 or min(better, worse) < 0 or better + worse > n:
        raise ValueError(f"{better} better and {worse} worse of {n}")
    z = float(norm.ppf(0.5 + confidence / 2))

    def score(difference: float) -> float:
        variance = n * (2 * _worse_given(difference, better, worse, n) + difference * (1 - difference))
        # At the ends of the range nothing varies; the sign is all that the search needs there.
        return (better - worse - n * difference) / max(variance, 1e-12) ** 0.5

    estimate = (better - worse) / n
    low = brentq(lambda d: score(d) - z, -1.0, estimate) if estimate > -1 else -1.0
    high = brentq(lambda d: score(d) + z, estimate, 1.0) if estimate < 1 else 1.0
    return float(low), float(high)


def _worse_given(difference: float, better: int, worse: int, n: int) -> float:
    """Most likely share of images that are right in the first alone, for a given true difference."""
    linear = -better - worse + (2 * n - better + worse) * difference
    constant = -worse * difference * (1 - difference)
    root = max(linear**2 - 8 * n * constant, 0.0) ** 0.5
    return max((root - linear) / (4 * n), 0.0, -difference)


def resampled_means(arms: list[np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(S, N) arrays, one an arm -> (resamples, arms) means, seeds and images drawn anew, paired.

    NaN marks an image that a run did not test; row s and column n mean the same seed and image in every
    arm, and each resample draws the same seeds and images in all of them. A mean over nothing is NaN.
    """
    runs, images = arms[0].shape
    assert all(arm.shape == (runs, images) for arm in arms), [arm.shape for arm in arms]
    rng = np.random.default_rng(seed)
    of_runs = _draws(rng, runs, resamples)
    of_images = _draws(rng, images, resamples)
    columns = []
    for arm in arms:
        known = np.isfinite(arm)
        total = ((of_runs @ np.where(known, arm, 0.0)) * of_images).sum(axis=1)
        weight = ((of_runs @ known) * of_images).sum(axis=1)
        columns.append(np.divide(total, weight, out=np.full(resamples, np.nan), where=weight > 0))
    return np.stack(columns, axis=1)


def _draws(rng: np.random.Generator, count: int, resamples: int) -> np.ndarray:
    """(resamples, count): how often each of ``count`` things is drawn in ``count`` draws."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def quantiles(values: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The central interval of (R,) resampled values; undefined ones are left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval | None:
    """Percentile interval of mean(b) - mean(a), resampling seeds and images, both paired.

    Both are (S, N) with 1 for right, 0 for wrong and NaN for an image that a run did not test; row s
    and column n mean the same seed and image in both. `None` when they never differ, since then the
    bootstrap sees no variation to resample.
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if not np.nan_to_num(difference).any():
        return None
    return quantiles(resampled_means([difference], resamples=resamples, seed=seed)[:, 0], confidence)
