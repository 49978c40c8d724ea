"""How many synthetic images stand in for a real one: a power law of the error over the images trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, log_expit
from scipy.stats import norm
from scipy.stats import t as student

from evaluate.analysis.intervals import CONFIDENCE, Interval
from evaluate.analysis.predictions import correctness, tested
from evaluate.analysis.summary import UNION, ArmKey, arms
from evaluate.generators import GIVEN, NONE, TUNED, plain, was_chosen
from evaluate.records.records import REAL_PART, Record

KINDS = ("ratio", "shots", REAL_PART)
"""Arms that differ in numbers of images alone."""
SOURCES = {
    ("ratio", GIVEN): "the given synthetic set",
    ("shots", TUNED): "generators tuned on each arm's own real images",
}
"""Kind of arm, generator -> what its synthetic images are called: those of unlike ones have unlike worth."""
WHERE = {"ratio": "from all real training images", "shots": "from each arm's own real images"}
LOWEST, HIGHEST = 1e-3, 10.0
"""Bounds of a synthetic image's worth in real ones: beyond 1000 to 1 it cannot be told from nothing."""
WORTHS = np.geomspace(LOWEST, HIGHEST, 81)
"""Worths at which the law is fitted first: at one of them there is one optimum, over all of them are many."""
STEEPEST = 3.0
"""The largest exponent that is tried."""
STARTS = ((0.0, 0.5), (-2.0, 0.1), (3.0, 0.1), (0.0, 2.0))
"""(logit of the error of the fewest images, exponent) from which each fit starts anew."""


class NoFitError(Exception):
    """The optimiser found no law; its own message."""


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
    interval: tuple[float | None, float | None] | None
    """95% interval, see `_rejected`; no upper end where they may be worth nothing, and no lower one where
    each may be worth more than `HIGHEST` real ones. `None` of three arms, through which a law always goes."""
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
    interval: Interval | None
    """95% interval of the exponent; `None` of two arms, through which a law always goes."""
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


@dataclass(frozen=True, kw_only=True)
class Arms:
    """What a law is fitted to; every arm counts alike."""

    real: np.ndarray
    """(A,) training images."""
    synthetic: np.ndarray
    right: np.ndarray
    """(A, N) share of an arm's runs that are right about each test image."""

    @property
    def accuracies(self) -> np.ndarray:
        """(A,)."""
        return self.right.mean(axis=1)


def sources(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """`SOURCES`, and the others that these runs have images of."""
    made = [arm for arm in _comparable(records) if arm.generator != NONE]
    others = {(arm.kind, arm.generator): f"{arm.generator}, {WHERE[arm.kind]}" for arm in made}
    return SOURCES | {origin: name for origin, name in others.items() if origin not in SOURCES}


def exchange(records: Sequence[Record], kind: str, generator: str = "") -> Exchange | str:
    """The rate of the synthetic images of a kind of arm, or the reason why these runs have none.

    They are those of ``generator``, by default of the one that goes without saying.

    Real images alone count whatever their arm's kind.
    """
    comparable = _comparable(records).items()
    origin = kind, generator or plain(kind)
    usable = {
        arm: runs
        for arm, runs in comparable
        if (arm.kind, arm.generator) == origin or not _mean_counts(runs)[1]
    }
    counts = [_mean_counts(runs) for runs in usable.values()]
    if len({real for real, synthetic in counts if not synthetic}) < 2:
        return (
            "needs real images alone in two numbers or more (--shots 4,16, or --generators none): one "
            "number does not say what a further real image is worth"
        )
    if all(not synthetic for _, synthetic in counts):
        return "needs an arm with synthetic images"
    found = _measured(usable)
    try:
        best = fit(found.real, found.synthetic, found.accuracies)
        if _exponent_interval(best, found)[0] <= 0:
            return (
                "needs arms in which more images lower the error: here the law may be flat, and on a flat "
                "law an image of either source is worth nothing"
            )
        interval = _rate_interval(best, found) if len(found.real) > 3 else None
    except NoFitError as error:
        return f"could not be fitted ({error})"
    fitted = best.accuracy(found.real, found.synthetic)
    return Exchange(
        source=sources(records)[origin],
        rate=1 / best.worth,
        interval=interval,
        scale=best.scale,
        exponent=best.exponent,
        deviation=100 * float(np.abs(fitted - found.accuracies).max()),
        points=tuple(
            Point(n_real=int(r), n_synthetic=int(s), accuracy=float(a), fitted=float(f))
            for r, s, a, f in zip(found.real, found.synthetic, found.accuracies, fitted, strict=True)
        ),
    )


def laws(records: Iterable[Record]) -> list[Law | str]:
    """A law for each source that was tried alone in two numbers of images or more, or why it has none."""
    comparable = {
        arm: runs for arm, runs in _comparable(records).items() if arm.generator in (NONE, plain(arm.kind))
    }
    found: list[Law | str] = []
    for place, source in enumerate(("real", "synthetic")):
        alone = {arm: runs for arm, runs in comparable.items() if not _mean_counts(runs)[1 - place]}
        if len({_mean_counts(runs) for runs in alone.values()}) > 1:
            try:
                found.append(_law(source, _measured(alone)))
            except NoFitError as error:
                found.append(f"{source.capitalize()} images alone: no law could be fitted ({error})")
    return found


def fit(real: np.ndarray, synthetic: np.ndarray, accuracies: np.ndarray) -> Fit:
    """(A,) images and accuracies -> the law of highest binomial likelihood, every arm counting alike.

    Likelihood rather than a line through logarithms: an arm without a mistake has no logarithm.

    Raises:
        NoFitError: the optimiser did not converge.
    """
    if not synthetic.any():
        return _given_worth(1.0, real, synthetic, accuracies)[0]

    def loss(log_worth: float) -> float:
        return _given_worth(float(np.exp(log_worth)), real, synthetic, accuracies)[1]

    places = np.log(WORTHS)
    losses = [loss(place) for place in places]
    least = int(np.argmin(losses))
    around = places[max(least - 1, 0)], places[min(least + 1, len(places) - 1)]
    finer = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-6})
    if not finer.success:
        raise NoFitError(finer.message)
    worth = float(np.exp(finer.x if finer.fun < losses[least] else places[least]))
    return _given_worth(worth, real, synthetic, accuracies)[0]


def _given_worth(
    worth: float, real: np.ndarray, synthetic: np.ndarray, accuracies: np.ndarray
) -> tuple[Fit, float]:
    """The law of highest likelihood at one worth, and the loss there.

    It is found by the error of the fewest images (its logit) and the exponent: no arm's expected error then
    reaches 1, so nothing is clipped, and the loss has one minimum.
    """
    images = real + worth * synthetic
    fewest = float(images.min())
    steps = np.log(images / fewest)
    for start in STARTS:
        found = minimize(
            _loss,
            start,
            args=(steps, 1 - accuracies),
            jac=True,
            bounds=[(-15.0, 15.0), (0.0, STEEPEST)],
            method="L-BFGS-B",
            options={"ftol": 1e-13, "gtol": 1e-8},
        )
        if found.success:
            logit, exponent = (float(value) for value in found.x)
            scale = float(expit(logit)) * fewest**exponent
            return Fit(scale=scale, exponent=exponent, worth=worth), float(found.fun)
    raise NoFitError(found.message)


def _loss(parameters: np.ndarray, steps: np.ndarray, errors: np.ndarray) -> tuple[float, np.ndarray]:
    """Negative log-likelihood of (logit of the error of the fewest images, exponent), and its gradient.

    ``steps`` are (A,) logarithms of an arm's images over the fewest, 0 or more; ``errors`` (A,), 0 to 1.
    """
    logit, exponent = parameters
    log_error = log_expit(logit) - exponent * steps
    right = -np.expm1(log_error)
    loss = -(errors * log_error + (1 - errors) * np.log(right)).sum()
    slope = (np.exp(log_error) - errors) / right
    return float(loss), np.array([expit(-logit) * slope.sum(), -(slope * steps).sum()])


def _rate_interval(best: Fit, found: Arms) -> tuple[float | None, float | None]:
    """Every rate that `_rejected` leaves, and `None` where that has no end."""
    noise = _beyond_the_law(best, found, parameters=3)

    def rejected(log_worth: float) -> float:
        law, _ = _given_worth(float(np.exp(log_worth)), found.real, found.synthetic, found.accuracies)
        return _rejected(law, found, noise)

    def end(places: np.ndarray) -> float | None:
        last = float(np.log(best.worth))
        for place in places:
            if rejected(place) > 0:
                return float(np.exp(-(brentq(rejected, last, place) if rejected(last) < 0 else last)))
            last = float(place)
        return None

    places, at = np.log(WORTHS), np.log(best.worth)
    return end(places[places > at]), end(places[places < at][::-1])


def _rejected(law: Fit, found: Arms, noise: tuple[float, int]) -> float:
    """Above 0 where a worth is refuted at the 5% level by the score test of the law fitted at that worth.

    The score is a contrast of the arms' errors (Boos 1992, The American Statistician 46:327-333), so its
    error can be read off the data: `_half`. Unlike a bootstrap it holds beside the bounds of the worth.
    """
    images = found.real + law.worth * found.synthetic
    error = _expected(law, found)
    weight = error / (1 - error)
    others = np.stack([np.ones_like(images), -np.log(images)], axis=1)
    own = -law.exponent * law.worth * found.synthetic / images
    weighted = others.T * weight
    contrast = (own - others @ np.linalg.solve(weighted @ others, weighted @ own)) / (1 - error)
    score = float(contrast @ (1 - found.accuracies - error))
    return abs(score) - _half(contrast, error, found, noise)


def _exponent_interval(law: Fit, found: Arms, parameters: int = 3) -> Interval:
    """95% interval of the exponent at the law's worth, by the same errors; ``parameters`` as were fitted."""
    images = found.real + law.worth * found.synthetic
    error = _expected(law, found)
    slopes = np.stack([np.ones_like(images), -np.log(images)], axis=1)
    weighted = slopes.T * (error / (1 - error))
    contrast = np.linalg.solve(weighted @ slopes, slopes.T / (1 - error))[1]
    half = _half(contrast, error, found, _beyond_the_law(law, found, parameters))
    return law.exponent - half, law.exponent + half


def _half(contrast: np.ndarray, error: np.ndarray, found: Arms, noise: tuple[float, int]) -> float:
    """Half a 95% interval of a contrast of the arms' errors.

    It holds the chance in the test images, which all arms share, and the arms' own: how far they lie from the
    law, be that the chance in training or the law's fault. Both add in squares, as in
    `evaluate.analysis.intervals`.
    """
    of_images = contrast @ found.right
    images = norm.isf((1 - CONFIDENCE) / 2) * of_images.std(ddof=1) / len(of_images) ** 0.5
    spread, degrees = noise
    if degrees < 1:
        return float(images)
    own = (spread * (contrast**2 * error * (1 - error)).sum()) ** 0.5
    return float(np.hypot(images, student.isf((1 - CONFIDENCE) / 2, degrees) * own))


def _beyond_the_law(law: Fit, found: Arms, parameters: int) -> tuple[float, int]:
    """How far the arms lie from the law, in squares of binomial errors of one image; degrees of freedom."""
    error = _expected(law, found)
    squares = (1 - found.accuracies - error) ** 2 / (error * (1 - error))
    degrees = len(error) - parameters
    return float(squares.sum()) / max(degrees, 1), degrees


def _expected(law: Fit, found: Arms) -> np.ndarray:
    """(A,) errors of the law, kept off 0 and 1 so that they have a variance."""
    return np.clip(1 - law.accuracy(found.real, found.synthetic), 1e-6, 1 - 1e-6)


def _law(source: str, found: Arms) -> Law:
    images = found.real + found.synthetic
    best = fit(images, np.zeros_like(images), found.accuracies)
    alone = replace(found, real=images, synthetic=np.zeros_like(images))
    return Law(
        source=source,
        scale=best.scale,
        exponent=best.exponent,
        interval=_exponent_interval(best, alone, parameters=2) if len(images) > 2 else None,
        counts=tuple(sorted(int(count) for count in images)),
    )


def _comparable(records: Iterable[Record]) -> dict[ArmKey, list[Record]]:
    found = arms(records)
    return {
        arm: runs
        for arm, runs in found.items()
        if arm.kind in KINDS and arm.mixing == UNION and not was_chosen(arm.generator)
    }


def _mean_counts(runs: Sequence[Record]) -> tuple[int, int]:
    real, synthetic = (round(np.mean([run[name] for run in runs])) for name in ("n_real", "n_synthetic"))
    return real, synthetic


def _measured(found: Mapping[ArmKey, Sequence[Record]]) -> Arms:
    """The arms' images and answers, over the test images that all of them have."""
    files = sorted(set.intersection(*(set(tested(runs)) for runs in found.values())))
    shares = [correctness(runs, files) for runs in found.values()]
    right = np.array([np.nanmean(np.stack([*of_arm.values()]), axis=0) for of_arm in shares])
    real, synthetic = np.array([_mean_counts(runs) for runs in found.values()], dtype=np.float64).T
    return Arms(real=real, synthetic=synthetic, right=right)
