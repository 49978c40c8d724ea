"""How many synthetic images stand in for a real one: a power law of the error over the images trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from evaluate.answers import Record, correctness, tested
from evaluate.intervals import Interval, quantiles, resampled_means
from evaluate.statistics import UNION, ArmKey, arms

KINDS = ("ratio", "shots", "oversampled")
"""Arms that differ in numbers of images alone; an oversampled one is real images without synthetic ones."""
SOURCES = {"ratio": "the given synthetic set", "shots": "generators tuned on each arm's own real images"}
"""Kinds with synthetic images -> where these come from: images of unlike generators have unlike worth."""
RESAMPLES = 300
LOWEST, HIGHEST = 1e-3, 10.0
"""Bounds of a synthetic image's worth in real ones: beyond 1000 to 1 it cannot be told from nothing."""
STEEPEST, FLATTEST = 3.0, 1e-3
"""Exponents: the largest that is tried, and one of a law on which numbers of images change nothing."""
NEAR = 1.01
"""Factor within which a worth counts as at its bound."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm as the law sees it."""

    n_real: int
    n_synthetic: int
    accuracy: float
    """Mean over runs, 0 to 1."""
    fitted: float
    """The law's value there."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """error = scale x (n_real + n_synthetic / rate) ^ -exponent, fitted to every arm at once."""

    source: str
    """Where the synthetic images come from."""
    rate: float
    """Synthetic images that one real image is worth."""
    interval: tuple[float | None, float | None]
    """95% bootstrap interval over seeds and images; no upper end where they may be worth nothing, and no
    lower one where each may be worth more than `HIGHEST` real ones."""
    scale: float
    exponent: float
    deviation: float
    """Largest distance of an arm from the law, accuracy points."""
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Law:
    """error = scale x n ^ -exponent over images of one source alone."""

    source: str
    """real or synthetic."""
    scale: float
    exponent: float
    interval: Interval
    """95% bootstrap interval of the exponent."""
    counts: tuple[int, ...]
    """Training images of the arms behind it."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Parameters of a law."""

    scale: float
    exponent: float
    worth: float
    """Real images that one synthetic image is worth; 1 where there is one source alone."""

    def accuracy(self, real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
        """Accuracy, 0 to 1, at numbers of real and synthetic images."""
        return 1 - np.minimum(self.scale * (real + self.worth * synthetic) ** -self.exponent, 1.0)


def exchange(records: Iterable[Record], kind: str) -> Exchange | str:
    """The rate of the synthetic images of one of `SOURCES`, or the reason why these runs have none.

    Real images alone count whatever their arm's kind.
    """
    comparable = _comparable(records).items()
    found = {arm: runs for arm, runs in comparable if arm.kind == kind or not _mean_counts(runs)[1]}
    counts = _counts(found)
    sizes = {real for real, synthetic in counts if not synthetic}
    if len(sizes) < 2:
        return (
            "needs real images alone in two numbers or more (--shots 4,16, or --controls oversampled): one "
            "number does not say what a further real image is worth"
        )
    if all(not synthetic for _, synthetic in counts):
        return "needs an arm with synthetic images"
    real, synthetic = np.array(counts, dtype=np.float64).T
    accuracies, resampled = _accuracies(found)
    best = fit(real, synthetic, accuracies)
    again = [fit(real, synthetic, row, start=best) for row in resampled]
    if quantiles(np.array([law.exponent for law in again]))[0] < FLATTEST:
        return (
            "needs arms in which more images lower the error: here the law may be flat, and on a flat law an "
            "image of either source is worth nothing"
        )
    low, high = quantiles(np.array([law.worth for law in again]))
    fitted = best.accuracy(real, synthetic)
    return Exchange(
        source=SOURCES[kind],
        rate=1 / best.worth,
        interval=(None if high * NEAR >= HIGHEST else 1 / high, None if low <= NEAR * LOWEST else 1 / low),
        scale=best.scale,
        exponent=best.exponent,
        deviation=100 * float(np.abs(fitted - accuracies).max()),
        points=tuple(
            Point(n_real=r, n_synthetic=s, accuracy=float(a), fitted=float(f))
            for (r, s), a, f in zip(counts, accuracies, fitted, strict=True)
        ),
    )


def laws(records: Iterable[Record]) -> list[Law]:
    """A law for each source that was tried alone in two numbers of images or more."""
    found = _comparable(records)
    alone = {
        source: {arm: runs for arm, runs in found.items() if not _mean_counts(runs)[1 - place]}
        for place, source in enumerate(("real", "synthetic"))
    }
    several = {source: arms for source, arms in alone.items() if len(set(_counts(arms))) > 1}
    return [_law(source, arms) for source, arms in several.items()]


def _law(source: str, alone: dict[ArmKey, list[Record]]) -> Law:
    counts = [real + synthetic for real, synthetic in _counts(alone)]
    accuracies, resampled = _accuracies(alone)
    images, none = np.array(counts, dtype=np.float64), np.zeros(len(counts))
    best = fit(images, none, accuracies)
    exponents = np.array([fit(images, none, row, start=best).exponent for row in resampled])
    return Law(
        source=source,
        scale=best.scale,
        exponent=best.exponent,
        interval=quantiles(exponents),
        counts=tuple(sorted(counts)),
    )


def fit(real: np.ndarray, synthetic: np.ndarray, accuracies: np.ndarray, start: Fit | None = None) -> Fit:
    """(A,) images and accuracies -> the law of highest binomial likelihood, every arm counting alike.

    Likelihood rather than a line through logarithms: an arm without a mistake has no logarithm.
    """
    mixed = bool(synthetic.any())
    first = start or Fit(scale=1.0, exponent=0.5, worth=0.3)
    guess = [np.log(first.scale), first.exponent, np.log(first.worth)]
    bounds = [(-10.0, 10.0), (0.0, STEEPEST), (np.log(LOWEST), np.log(HIGHEST))]
    used = slice(None) if mixed else slice(2)
    found = minimize(
        _loss,
        guess[used],
        args=(real, synthetic, 1 - accuracies),
        jac=True,
        bounds=bounds[used],
        method="L-BFGS-B",
    ).x
    worth = float(np.exp(found[2])) if mixed else 1.0
    return Fit(scale=float(np.exp(found[0])), exponent=float(found[1]), worth=worth)


def _loss(
    parameters: np.ndarray, real: np.ndarray, synthetic: np.ndarray, errors: np.ndarray
) -> tuple[float, np.ndarray]:
    """Negative log-likelihood of (log scale, exponent, log worth), and its gradient."""
    exponent = parameters[1]
    converted = np.exp(parameters[2]) * synthetic if len(parameters) > 2 else np.zeros_like(real)
    total = real + converted
    expected = np.clip(np.exp(parameters[0] - exponent * np.log(total)), 1e-9, 1 - 1e-6)
    loss = -(errors * np.log(expected) + (1 - errors) * np.log1p(-expected)).sum()
    slope = (expected - errors) / (1 - expected)
    gradient = [slope.sum(), -(slope * np.log(total)).sum(), -exponent * (slope * converted / total).sum()]
    return float(loss), np.array(gradient[: len(parameters)])


def _comparable(records: Iterable[Record]) -> dict[ArmKey, list[Record]]:
    found = arms(records)
    return {arm: runs for arm, runs in found.items() if arm.kind in KINDS and arm.mixing == UNION}


def _mean_counts(runs: Sequence[Record]) -> tuple[int, int]:
    real, synthetic = (round(np.mean([run[name] for run in runs])) for name in ("n_real", "n_synthetic"))
    return real, synthetic


def _counts(found: dict[ArmKey, list[Record]]) -> list[tuple[int, int]]:
    return [_mean_counts(runs) for runs in found.values()]


def _accuracies(found: dict[ArmKey, list[Record]]) -> tuple[np.ndarray, np.ndarray]:
    """(A,) mean accuracies, and (R, A) of them over seeds and images drawn anew, the same in all arms."""
    files = tested([run for runs in found.values() for run in runs])
    answers = [correctness(runs, files) for runs in found.values()]
    replicates = sorted({key for of_arm in answers for key in of_arm}, key=str)
    empty = np.full(len(files), np.nan)
    rows = [np.stack([of_arm.get(key, empty) for key in replicates]) for of_arm in answers]
    means = np.array([np.nanmean(of_arm) for of_arm in rows])
    resampled = resampled_means(rows, resamples=RESAMPLES)
    return means, resampled[np.isfinite(resampled).all(axis=1)]
