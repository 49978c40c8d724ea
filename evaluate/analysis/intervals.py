"""Intervals of a proportion, of the difference between two arms, and of a ROC-AUC; spread over runs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]
CONFIDENCE = 0.95
SMALLEST = 1e-9
"""The smallest p value that is told from 0."""


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


def accuracy_interval(right: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """(S, N) answers, 1 for right, a row a seed -> interval of the mean accuracy over seeds and images.

    Wilson's for N images, since all seeds see the same ones, widened by `_with_seeds`. NaN marks an image
    that a seed did not test.
    """
    images = np.nanmean(right, axis=0)
    estimate = float(images.mean())
    of_images = wilson(estimate * len(images), len(images), confidence)
    low, high = _with_seeds(estimate, of_images, right, confidence)
    return max(0.0, low), min(1.0, high)


def difference_interval(differences: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """(S, N) differences between two arms, -1 to 1, a row a seed -> interval of their mean.

    Over images it is Bonett and Price's (2012, J. Educational and Behavioral Statistics 37:479-488): one
    image more is better and one worse, so that arms that never differ have an interval too. `_with_seeds`
    widens it; of one seed it is the interval for these two classifiers, not for others trained alike. NaN
    marks an image that a seed did not test.
    """
    images = np.nanmean(differences, axis=0)
    n = len(images) + 2
    estimate, centre = float(images.mean()), float(images.sum() / n)
    variance = ((images**2).sum() + 2) / n - centre**2
    half = float(norm.isf((1 - confidence) / 2) * (variance / n) ** 0.5)
    low, high = _with_seeds(estimate, (centre - half, centre + half), differences, confidence)
    return max(-1.0, low), min(1.0, high)


def _with_seeds(estimate: float, over_images: Interval, rows: np.ndarray, confidence: float) -> Interval:
    """An interval over images with the chance of another seed: Student's t over the S means of the rows.

    Both halves add in squares (MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693-1702). Resampling
    cannot do this: a bootstrap of two to five seeds finds too little variance.
    """
    means = np.nanmean(rows[np.isfinite(rows).any(axis=1)], axis=1)
    if len(means) < 2:
        return over_images
    error = float(means.std(ddof=1)) / len(means) ** 0.5
    over_seeds = float(student.isf((1 - confidence) / 2, len(means) - 1)) * error
    low, high = over_images
    below, above = max(estimate - low, 0.0), max(high - estimate, 0.0)
    return estimate - float(np.hypot(below, over_seeds)), estimate + float(np.hypot(above, over_seeds))


def mean_interval(estimates: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The interval of the mean of independent estimates, each with its own: their halves add in squares.

    That is MOVER: Zou and Donner 2008, Statistics in Medicine 27:1693-1702.
    """
    mean, (low, high) = float(np.mean(estimates)), zip(*intervals, strict=True)
    below, above = np.maximum(np.subtract(estimates, low), 0), np.maximum(np.subtract(high, estimates), 0)
    count = len(estimates)
    return mean - float(np.linalg.norm(below)) / count, mean + float(np.linalg.norm(above)) / count


def p_below(differences: np.ndarray, bound: float) -> float:
    """One-sided p of "the mean is ``bound`` or less", by `difference_interval`; (S, N) as there.

    It is .025 where the lower end of the 95% interval is ``bound``.
    """
    if float(np.nanmean(differences)) < bound:
        return 1 - p_below(-differences, -bound)

    def above(log_p: float) -> float:
        return difference_interval(differences, 1 - 2 * float(np.exp(log_p)))[0] - bound

    least, most = np.log(SMALLEST), np.log(0.5 - SMALLEST)
    if above(most) <= 0:
        return 0.5
    return SMALLEST if above(least) > 0 else float(np.exp(brentq(above, least, most)))


def p_of_difference(differences: np.ndarray) -> float:
    """Two-sided p of "no difference", by `difference_interval`; (S, N) as there."""
    return min(1.0, 2 * min(p_below(differences, 0.0), p_below(-differences, 0.0)))


def auc_interval(area: float, positive: int, negative: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a ROC-AUC of so many images on either side. Newcombe 2006, Statistics in Medicine
    25:559-573, method 5: the error of Hanley and McNeil, with the true area in the place of the measured one,
    so that an area of 1 has an interval too.
    """
    z, size = float(norm.isf((1 - confidence) / 2)), (positive + negative) / 2

    def error(true: float) -> float:
        shared = 1 + (size - 1) * ((1 - true) / (2 - true) + true / (1 + true))
        return z * float(true * (1 - true) * shared / (positive * negative)) ** 0.5

    # An area of 0 or 1 has no error of its own: the root beside it is wanted.
    low = brentq(lambda true: area - true - error(true), 0.0, area - SMALLEST) if area > 0 else 0.0
    high = brentq(lambda true: true - area - error(true), area + SMALLEST, 1.0) if area < 1 else 1.0
    return float(low), float(high)
