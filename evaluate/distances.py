"""How far one set of images lies from another, in the features of a network: measures without a network."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluate.intervals import Spread, mean_and_spread

SUBSETS, LARGEST = 50, 500
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
class Gap:
    """A set of images against real training images."""

    images: int
    reference: int
    """Real training images."""
    kid: Spread
    """Kernel inception distance over subsets; 0 for sets of one distribution."""
    subset: int
    """Images in each of its subsets."""
    manifold: Manifold
    discriminator: Mapping[str, float | None]
    """Class -> cross-validated ROC-AUC of telling the two apart, 0.5 where nothing does; `None`: short."""


Gaps = Mapping[str, Mapping[str, Gap]]
"""Network -> `synthetic`, and `test` where its images are enough -> gap to the real training photos."""


def measure(
    features: np.ndarray,
    labels: np.ndarray,
    real: np.ndarray,
    real_labels: np.ndarray,
    classes: tuple[str, ...],
) -> Gap:
    """(N, D) and (M, D) features with (N,) and (M,) places in ``classes`` -> every measure."""
    distance, subset = kid(real, features)
    return Gap(
        images=len(features),
        reference=len(real),
        kid=distance,
        subset=subset,
        manifold=manifold(real, features),
        discriminator={
            name: discriminator(real[real_labels == place], features[labels == place])
            for place, name in enumerate(classes)
        },
    )


def kid(real: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[Spread, int]:
    """(N, D), (M, D), two rows or more each -> distance over subsets, and their size. Binkowski et al. 2018.

    The distance has no bias at any subset size; half of the smaller set, at most 500, leaves the 50
    subsets room to differ.
    """
    size = max(2, min(LARGEST, min(len(real), len(other)) // 2))
    rng = np.random.default_rng(seed)

    def some(rows: np.ndarray) -> np.ndarray:
        return rows[rng.choice(len(rows), size, replace=False)]

    return mean_and_spread(squared_discrepancy(some(real), some(other)) for _ in range(SUBSETS)), size


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


def discriminator(real: np.ndarray, other: np.ndarray) -> float | None:
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
    return float(roc_auc_score(truth, scores))
