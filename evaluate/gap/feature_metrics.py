"""How far one set of images lies from another, in the features of a network: measures without a network."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluate.analysis.intervals import Interval, Spread, auc_interval, mean_and_spread

SUBSETS = 50
DRAWS = 10
"""Draws of a set over which precision, recall, density and coverage are averaged."""
MEASURES = ("precision", "recall", "density", "coverage")
NEIGHBOURS = 5
FOLDS = 5
MOST = 1000
"""Images a side that the discriminator is trained on."""


@dataclass(frozen=True, kw_only=True)
class Manifold:
    """How two clouds of features cover each other; see `manifold`."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True, kw_only=True)
class Area:
    """A ROC-AUC."""

    area: float
    """0.5 where nothing tells the two sides apart."""
    interval: Interval
    """95% interval (`auc_interval`)."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A set of images against real training images."""

    images: int
    reference: int
    """Real training images."""
    each: Mapping[str, int]
    """Class -> images of it that were compared at a time."""
    kid: Spread
    """Kernel inception distance within classes, over draws; 0 for sets of one distribution."""
    manifold: Manifold
    discriminator: Mapping[str, Area | None]
    """Class -> how well the two can be told apart; `None`: too few images."""


Gaps = Mapping[str, Mapping[str, Gap]]
"""Network -> `synthetic`, and `test` where its images are enough -> gap to the real training photos."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Features of a set of images."""

    features: np.ndarray
    """(N, D)."""
    labels: np.ndarray
    """(N,) places in the class list."""

    def of(self, place: int) -> np.ndarray:
        """The features of one class."""
        return self.features[self.labels == place]

    def draws(self, each: Mapping[int, int], times: int, seed: int = 0) -> Iterator[dict[int, np.ndarray]]:
        """``times`` draws of so many images of each class, or of all of a class that has fewer."""
        rng = np.random.default_rng(seed)
        classes = {int(place): self.of(place) for place in np.unique(self.labels) if int(place) in each}
        for _ in range(times):
            yield {
                place: rows[rng.choice(len(rows), min(each[place], len(rows)), replace=False)]
                for place, rows in classes.items()
            }


def measure(other: Cloud, real: Cloud, classes: Sequence[str], each: Mapping[int, int]) -> Gap:
    """Every measure of ``other`` against ``real``.

    What depends on the number of images takes ``each`` (place in ``classes`` -> images) at a time, so that
    sets of different size can be compared; a rare class does not say how many images of the others are drawn.
    Features are first divided by the root mean square of the real ones, without which the cubic kernel would
    follow the few largest.
    """
    scale = np.sqrt(np.mean(real.features**2)) or 1.0
    other, real = (replace(cloud, features=cloud.features / scale) for cloud in (other, real))
    distance = kid(real, other, each)
    return Gap(
        images=len(other.features),
        reference=len(real.features),
        each={classes[place]: count for place, count in each.items()},
        kid=distance,
        manifold=_mean(
            [manifold(real.features, np.concatenate([*drawn.values()])) for drawn in other.draws(each, DRAWS)]
        ),
        discriminator={
            name: discriminator(real.of(place), other.of(place)) for place, name in enumerate(classes)
        },
    )


def kid(real: Cloud, other: Cloud, each: Mapping[int, int]) -> Spread:
    """Mean and spread of the distance over 50 draws of both sets. Binkowski et al. 2018.

    It is taken class by class and averaged, so that another mixture of classes is no distance; classes with
    fewer than two images on a side are left out. The estimate has no bias, however few images a draw has.
    """
    pairs = zip(real.draws(each, SUBSETS), other.draws(each, SUBSETS, seed=1), strict=True)
    return mean_and_spread(_class_by_class(a, b) for a, b in pairs)


def _class_by_class(a: Mapping[int, np.ndarray], b: Mapping[int, np.ndarray]) -> float | None:
    shared = [place for place in a if place in b and min(len(a[place]), len(b[place])) > 1]
    return float(np.mean([squared_discrepancy(a[place], b[place]) for place in shared])) if shared else None


def _mean(found: Sequence[Manifold]) -> Manifold:
    return Manifold(**{name: float(np.mean([getattr(one, name) for one in found])) for name in MEASURES})


def squared_discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """(N, D), (M, D) -> unbiased squared maximum mean discrepancy under the kernel (x.y / D + 1)^3."""

    def mean_of_pairs(rows: np.ndarray) -> float:
        kernel = pairwise.polynomial_kernel(rows, degree=3)
        return float((kernel.sum() - np.trace(kernel)) / (len(rows) * (len(rows) - 1)))

    across = float(pairwise.polynomial_kernel(a, b, degree=3).mean())
    return mean_of_pairs(a) + mean_of_pairs(b) - 2 * across


def manifold(real: np.ndarray, other: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifold:
    """(N, D), (M, D) -> precision, recall (Kynkaanniemi et al. 2019), density, coverage (Naeem et al. 2020).

    Each point has a ball that reaches to its k-th neighbour in its own set. precision: share of the other
    points in some real ball; recall: the reverse; density: real balls around an other point, over k;
    coverage: share of real balls that hold an other point. Sets of one distribution have density 1.
    """
    k = min(neighbours, len(real) - 1, len(other) - 1)
    assert k >= 1, (len(real), len(other))
    distances = pairwise.euclidean_distances(other, real)
    in_real = distances <= _radii(real, k)[None, :]
    in_other = distances <= _radii(other, k)[:, None]
    return Manifold(
        precision=float(in_real.any(axis=1).mean()),
        recall=float(in_other.any(axis=0).mean()),
        density=float(in_real.sum(axis=1).mean() / k),
        coverage=float(in_real.any(axis=0).mean()),
    )


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """(N, D) -> (N,) distance of each point to its k-th neighbour, itself not counted."""
    distances, _ = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()
    return distances[:, -1]


def discriminator(real: np.ndarray, other: np.ndarray) -> Area | None:
    """(N, D), (M, D) -> ROC-AUC of a logistic regression that tells them apart, on images it did not see.

    Five-fold cross-validation over standardised features; `None` with fewer than five images on a side.
    """
    if min(len(real), len(other)) < FOLDS:
        return None
    sides = [side[np.linspace(0, len(side) - 1, min(MOST, len(side))).astype(int)] for side in (real, other)]
    truth = np.repeat([0, 1], [len(side) for side in sides])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # A rank of scores is enough here; the last digit of the weights is not needed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_predict(model, np.concatenate(sides), truth, cv=folds, method="decision_function")
    area = float(roc_auc_score(truth, scores))
    return Area(area=area, interval=auc_interval(area, len(sides[1]), len(sides[0])))
