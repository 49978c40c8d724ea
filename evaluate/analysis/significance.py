"""Whether two classifiers differ on the same test images: exact McNemar, Holm, power."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar

ALPHA = 0.05
POWER = 0.8
LARGEST = 10_000
"""Test images up to which `images_needed` searches."""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a test set can tell apart at the 5% level."""

    n: int
    """Test images."""
    pairs: int
    """Fewest images on which two classifiers must differ, all one way."""
    points: float | None
    """That difference in percentage points; `None` when the set has fewer images than that."""
    top: float | None
    """Highest accuracy that can be told apart from a perfect one, 0 to 1."""
    likely_points: float | None
    """True loss, in percentage points, that is found in 80% of such experiments when no image gains."""


def mcnemar_exact(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> float:
    """Two-sided exact p for two classifiers on the same N images, 1 where they never differ.

    Raises:
        ValueError: sequences of different length.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} images against {b.shape}")
    table = [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), int((~a & ~b).sum())]]
    return min(1.0, float(mcnemar(table, exact=True).pvalue))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values, each made so that rejecting at .05 errs once in twenty experiments. Holm 1979.

    `None` stays `None` and is not counted among the comparisons.
    """
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    found: list[float | None] = [None] * len(values)
    largest = 0.0
    # Not by statsmodels, which collects garbage on every call: with torch loaded half a second each.
    for rank, (value, place) in enumerate(known):
        largest = max(largest, (len(known) - rank) * value)
        found[place] = min(1.0, largest)
    return found


@cache
def smallest_detectable(n: int) -> Resolution:
    """The smallest difference that exact McNemar calls significant at .05 on ``n`` images.

    That is when all discordant pairs go one way, 6 to 0: at n = 55 a classifier with 49 right can
    be told from one with 55 right, one with 50 cannot.
    """
    pairs = fewest_pairs()
    enough = n >= pairs
    return Resolution(
        n=n,
        pairs=pairs,
        points=100 * pairs / n if enough else None,
        top=(n - pairs) / n if enough else None,
        likely_points=100 * likely_loss(n) if enough else None,
    )


def fewest_pairs() -> int:
    """Images that must differ, all one way, for a two-sided sign test to reach .05."""
    pairs = 1
    while 2 * 0.5**pairs > ALPHA:
        pairs += 1
    return pairs


@cache
def power(n: int, losses: float, gains: float = 0.0) -> float:
    """Chance that exact McNemar on ``n`` images finds a difference at .05, 0 to 1.

    Each image turns from right to wrong with probability ``losses`` and from wrong to right with
    ``gains``, independently of the others; summed over every table that can come out.
    """
    differing = losses + gains
    if differing == 0:
        return 0.0
    counts = np.arange(1, n + 1)
    # The test rejects when the smaller side has at most `limit` of the differing images.
    limit = binom.ppf(ALPHA / 2, counts, 0.5).astype(int)
    limit -= binom.cdf(limit, counts, 0.5) > ALPHA / 2
    share = losses / differing
    found = binom.cdf(limit, counts, share) + binom.sf(counts - limit - 1, counts, share)
    return float((binom.pmf(counts, n, differing) * found).sum())


def likely_loss(n: int, chance: float = POWER) -> float:
    """The true share of images lost, none gained, that is found with probability ``chance``."""
    assert n >= fewest_pairs(), n
    return float(brentq(lambda losses: power(n, losses) - chance, 1e-9, 1.0))


@cache
def images_needed(loss: float, chance: float = POWER) -> int | None:
    """Fewest test images on which a true loss of that share is found with probability ``chance``.

    For a loss without gains. `None` beyond 10,000 images.
    """
    low, high = fewest_pairs() - 1, fewest_pairs()
    while power(high, loss) < chance:
        if high == LARGEST:
            return None
        low, high = high, min(2 * high, LARGEST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, loss) >= chance else (middle, high)
    return high
