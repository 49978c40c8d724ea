"""Photos that may have another label: confident learning on what an out-of-fold classifier thinks.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", the method
of cleanlab: its rule takes a few lines.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orchard.images import splits
from orchard.images.images import ImageSet, Photo, pixels

FOLDS = 5
STRENGTH = 0.1
"""scikit-learn's C, the inverse of the penalty on standardised features."""
CELLS, DIRECTIONS, LEVELS = 8, 9, 4
"""Cells of a side for colours and edges, directions of an edge, levels of a colour channel."""
AT_ONCE, SIDE = 64, 224
"""Photos that a backbone takes at a time, and their side in pixels."""
Features = Callable[[Sequence[Photo], np.ndarray], np.ndarray]
"""N photos and the same as (N, S, S, 3) uint8 -> (N, D) features."""


def colours_and_edges(photos: Sequence[Photo], small: np.ndarray) -> np.ndarray:
    """Colours by place, colours of the whole, directions of edges by place: what needs no network."""
    count, side = small.shape[:2]
    cell = side // CELLS
    images = small.astype(np.float32) / 255
    cells = images.reshape(count, CELLS, cell, CELLS, cell, 3)
    places = cells.mean(axis=(2, 4)).reshape(count, -1)
    levels = np.minimum((images * LEVELS).astype(int), LEVELS - 1) @ [LEVELS**2, LEVELS, 1]
    colours = np.stack([np.bincount(one.ravel(), minlength=LEVELS**3) for one in levels]) / side**2
    down, across = np.gradient(images.mean(axis=-1), axis=(1, 2))
    size, angle = np.hypot(down, across), np.arctan2(down, across) % np.pi
    which = np.minimum((angle / np.pi * DIRECTIONS).astype(int), DIRECTIONS - 1)
    edges = np.stack([np.where(which == one, size, 0) for one in range(DIRECTIONS)], axis=-1)
    edges = edges.reshape(count, CELLS, cell, CELLS, cell, DIRECTIONS).sum(axis=(2, 4)).reshape(count, -1)
    edges /= np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-6)
    return np.concatenate([places, np.sqrt(colours), np.sqrt(edges)], axis=1)


def of_backbone(name: str) -> Features:
    """The features of a published network.

    Raises:
        UserError: it is not on this machine, or takes no images.
    """
    from orchard import devices
    from orchard.classifiers import embeddings

    embed = embeddings.of_backbone(name, devices.processes().device)

    def features(photos: Sequence[Photo], small: np.ndarray) -> np.ndarray:
        starts = range(0, len(photos), AT_ONCE)
        return np.concatenate([embed(pixels(photos[i : i + AT_ONCE], SIDE)) for i in starts])

    return features


def out_of_fold(features: np.ndarray, images: ImageSet) -> np.ndarray | None:
    """(N, D) -> (N, K) probabilities, each by a logistic regression that has not seen the photo.

    Copies of one file are in one fold. None where a class has a single photo, or all are of one class.
    """
    there = images.counts()
    contents: dict[str, set[str]] = {name: set() for name in images.classes}
    for photo in images.photos:
        contents[photo.label].add(photo.sha256)
    smallest = min(map(len, contents.values()))
    if len(there) < 2 or smallest < 2:
        return None
    labels = images.labels()
    found = np.zeros((len(labels), len(images.classes)))
    for fold in splits.folds(images, min(FOLDS, smallest), "review", 0):
        out = np.array([photo.sha256 in fold for photo in images.photos])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
        model.fit(features[~out], labels[~out])
        found[np.ix_(out, model.classes_)] = model.predict_proba(features[out])
    return found


def margins(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, K), (N,) -> (N,) probability of the label less that of the likeliest other class."""
    own = np.arange(len(labels)), labels
    others = probabilities.copy()
    others[own] = -np.inf
    return probabilities[own] - others.max(axis=1)


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """(N, K), (N,) -> place of a photo -> class that it confidently is of instead.

    A photo is confidently of a class whose probability is at least the mean that the photos labelled so have
    for it; of several, of the likeliest. The paper's confident joint counts these pairs off its diagonal.
    """
    classes = range(probabilities.shape[1])
    confident = np.array([probabilities[labels == k, k].mean() for k in classes])
    above = np.where(probabilities >= confident, probabilities, -np.inf)
    likeliest = above.argmax(axis=1)
    apart = (above.max(axis=1) > -np.inf) & (likeliest != labels)
    return {int(place): int(likeliest[place]) for place in np.flatnonzero(apart)}
