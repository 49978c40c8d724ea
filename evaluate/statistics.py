"""What the runs of a sweep say together, and how much of it the test set can carry."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

AVERAGED = ("precision", "recall", "f1", "roc_auc")
METRICS = ("accuracy", *AVERAGED)
ALPHA = 0.05

Record = Mapping[str, Any]
"""One finished run: a line of ``records.jsonl``."""


class Spread(NamedTuple):
    """Mean and sample standard deviation over runs; `None` where undefined."""

    mean: float | None
    sd: float | None


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a test set can tell apart at the 5 % level."""

    n: int
    """Test images."""
    pairs: int
    """Fewest images on which two classifiers must differ, all one way."""
    points: float | None
    """That difference in percentage points; `None` when the set has fewer images than that."""
    top: float | None
    """Highest accuracy that can be told apart from a perfect one, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """All runs of one arm, which is a (design, ratio, shots)."""

    design: str
    ratio: float
    """Share of real images, 0 to 1."""
    shots: int | None
    """Real images a class in a low-shot arm."""
    runs: int
    n_real: int
    """Real training images, the rounded mean over runs."""
    n_synthetic: int
    n_test: int
    """Distinct test images over all runs."""
    weighted: Mapping[str, Spread]
    """Accuracy and the averages weighted by support."""
    macro: Mapping[str, Spread]
    """The same averages as plain means over classes; no accuracy."""
    interval: tuple[float, float]
    """Wilson 95 % interval of the mean accuracy."""
    delta: float | None
    """Mean accuracy minus that of ratio 1.0 with the same design and shots, percentage points."""
    delta_interval: tuple[float, float] | None
    """95 % bootstrap interval of that difference, percentage points."""
    p: float | None
    """Exact McNemar p of the arm's vote over seeds against the vote of ratio 1.0."""


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
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


def smallest_detectable(n: int) -> Resolution:
    """The smallest difference that exact McNemar calls significant at .05 on ``n`` images.

    That is when all discordant pairs go one way, 6 to 0: at n = 55 a classifier with 49 right can
    be told from one with 55 right, one with 50 cannot.
    """
    pairs = 1
    while mcnemar_exact([True] * pairs, [False] * pairs) > ALPHA:
        pairs += 1
    enough = n >= pairs
    return Resolution(
        n=n,
        pairs=pairs,
        points=100 * pairs / n if enough else None,
        top=(n - pairs) / n if enough else None,
    )


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of mean(b) - mean(a), resampling seeds and images, both paired.

    Both are (S, N) with 1 for right, 0 for wrong and NaN for an image that a run did not test; row s
    and column n mean the same seed and image in both. `None` when they never differ, since then the
    bootstrap sees no variation to resample.
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    known = np.isfinite(difference)
    difference = np.where(known, difference, 0.0)
    if not difference.any():
        return None
    runs, images = difference.shape
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        of_runs = np.bincount(rng.integers(runs, size=runs), minlength=runs)
        of_images = np.bincount(rng.integers(images, size=images), minlength=images)
        weight = of_runs @ known @ of_images
        if weight:
            means.append(of_runs @ difference @ of_images / weight)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def predicted(prediction: Record) -> str:
    """The class of highest probability, the first of equals."""
    probabilities = prediction["probabilities"]
    return max(probabilities, key=probabilities.__getitem__)


def summarise(records: Iterable[Record]) -> list[Row]:
    """One row an arm: designs in the order they appear, then shots, then falling ratio.

    The Wilson interval takes the mean accuracy over runs as a share of the n distinct test images.
    Its n is images, not images x seeds: the seeds see the same images, so more seeds say nothing
    more about other images. The McNemar p compares the arms' votes over seeds (`_vote`), since a
    p from one seed would depend on which seed comes first; it is not corrected for several arms.
    """
    arms: dict[tuple[str, float, int | None], list[Record]] = defaultdict(list)
    for record in records:
        arms[record["design"], record["ratio"], record["shots"]].append(record)
    designs = list(dict.fromkeys(design for design, _, _ in arms))
    order = sorted(arms, key=lambda arm: (designs.index(arm[0]), arm[2] or 0, -arm[1]))
    return [_row(arms[arm], arms.get((arm[0], 1.0, arm[2]))) for arm in order]


def _row(runs: Sequence[Record], real_only: Sequence[Record] | None) -> Row:
    files = {prediction["file"] for run in runs for prediction in run["predictions"]}
    weighted = {name: mean_and_spread(run[name] for run in runs) for name in METRICS}
    accuracy = float(np.mean([run["accuracy"] for run in runs]))
    delta, interval, p = None, None, None
    if real_only and runs[0]["ratio"] != 1.0:
        delta, interval, p = _compare(real_only, runs)
    return Row(
        design=runs[0]["design"],
        ratio=runs[0]["ratio"],
        shots=runs[0]["shots"],
        runs=len(runs),
        n_real=round(np.mean([run["n_real"] for run in runs])),
        n_synthetic=round(np.mean([run["n_synthetic"] for run in runs])),
        n_test=len(files),
        weighted=weighted,
        macro={name: mean_and_spread(run["macro"][name] for run in runs) for name in AVERAGED},
        interval=wilson(accuracy * len(files), len(files)),
        delta=delta,
        delta_interval=interval,
        p=p,
    )


def _compare(
    a: Sequence[Record], b: Sequence[Record]
) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Difference b - a in points, its bootstrap interval, McNemar p: all over the seeds both arms have."""
    runs_a, runs_b = ({(run["seed"], run.get("fold")): run for run in runs} for runs in (a, b))
    shared = [key for key in runs_a if key in runs_b]
    if not shared:
        return None, None, None
    a, b = ([runs[key] for key in shared] for runs in (runs_a, runs_b))
    delta = 100 * float(np.mean([run["accuracy"] for run in b]) - np.mean([run["accuracy"] for run in a]))
    vote_a, vote_b = _vote(a), _vote(b)
    files = sorted(vote_a.keys() & vote_b.keys())
    if not files:
        return delta, None, None
    p = mcnemar_exact([vote_a[f] for f in files], [vote_b[f] for f in files])
    right_a, right_b = (np.array([_right(run, files) for run in runs], dtype=np.float64) for runs in (a, b))
    interval = bootstrap_difference(right_a, right_b)
    return delta, (100 * interval[0], 100 * interval[1]) if interval else None, p


def _right(run: Record, files: Sequence[str]) -> list[float]:
    known = {q["file"]: float(predicted(q) == q["truth"]) for q in run["predictions"]}
    return [known.get(file, float("nan")) for file in files]


def _vote(runs: Sequence[Record]) -> dict[str, bool]:
    """File -> whether the class most runs predict is right; summed probability breaks ties."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    weights: dict[str, Counter[str]] = defaultdict(Counter)
    truth: dict[str, str] = {}
    for prediction in (prediction for run in runs for prediction in run["predictions"]):
        file = prediction["file"]
        truth[file] = prediction["truth"]
        votes[file][predicted(prediction)] += 1
        weights[file].update(prediction["probabilities"])
    return {
        file: max(votes[file], key=lambda name: (votes[file][name], weights[file][name])) == truth[file]
        for file in truth
    }
