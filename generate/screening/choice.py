"""Which candidate of each place in the set is kept: rules, what they measure, and the choice itself.

With ``--candidates N`` a place of the set has N rows, which share prompt and guide, and one of them is kept.
So the kept rows have the phrases evenly whatever the rule prefers, a choice depends on its place and those
before it alone, and a larger count only adds to what is there.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from generate.config import Generate
from orchard.classifiers import classifier, embeddings
from orchard.errors import UserError
from orchard.files import atomic
from orchard.images.images import DECODING, ImageSet, Photo, pixels, sha256, sized
from orchard.images.splits import stable_hash

KEEP, RULE = "keep", "rule"
"""Among the arguments of a set: the choice, and in it the rule."""
MARGIN, DISTANCE, FEATURES, CLIP = "class_margin", "feature_distance", "features", "clip_score"
COLUMNS: dict[str, tuple[str, ...]] = {
    "random": (),
    "margin": (MARGIN,),
    "hard": (MARGIN, DISTANCE),
    "near": (DISTANCE,),
    "diverse": (FEATURES,),
    "clip": (CLIP,),
}
"""Rule -> what it measures."""
SAID = {
    "random": "one drawn at random",
    "margin": "the one that the classifier is surest of",
    "hard": "the one that the classifier is right about but least sure of, no farther from a real training "
    "photo of its class than 95% of these are from each other; where none is, the surest",
    "near": "the one nearest to a real training photo of its class",
    "diverse": "the one farthest from all that were kept before it",
    "clip": "the one that CLIP finds most like its prompt",
}
BAND = 0.95
"""Share of the real photos of a class whose nearest other one is within a distance of 1."""
LEAST = 1e-4
"""Stands in for a band of no width, which photos that are all there twice would have."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A rule before anything is loaded."""

    rule: str
    arguments: dict[str, Any]
    """The rule, and for each of its columns what decides the values."""
    seen: list[str]
    """SHA-256 of the real images that it compares with, or that its classifier has seen."""
    through: int
    """Pixels by which real images go before their features are compared with those of sampled ones."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is measured of every candidate."""
        return COLUMNS[self.rule]

    @property
    def compares(self) -> bool:
        """Whether it compares with real images."""
        return DISTANCE in self.columns

    def beside(self, train: ImageSet | None, labels: Sequence[str]) -> "Choice":
        """The choice that compares with these real training images, if it compares with any.

        Raises:
            UserError: a class has none.
        """
        if not self.compares:
            return self
        assert train is not None
        for label in labels:
            if label not in train.counts():
                raise UserError(
                    f"--keep {self.rule}: --data {train.name} has no class {label}; name the real set"
                )
        photos = [photo.sha256 for photo in train.photos if photo.label in labels]
        there = {
            "train": sha256("".join(sorted(photos)).encode()),
            "decoding": DECODING,
            "through": self.through,
        }
        arguments = {**self.arguments, DISTANCE: self.arguments[DISTANCE] | there}
        return replace(self, arguments=arguments, seen=sorted({*self.seen, *photos}))


def plan(config: Generate, through: int) -> Choice | None:
    """The choice that the options ask for, if any.

    Raises:
        UserError: its classifier or backbone cannot be read.
    """
    if config.keep is None:
        return None
    columns, seen = COLUMNS[config.keep], []
    made_of: dict[str, Any] = {}
    if config.screen_classifier is not None and columns:
        mine = {"classifier": atomic.file_hash(classifier.find(config.screen_classifier))}
        if MARGIN in columns or not config.backbone:
            seen = sorted(classifier.read(config.screen_classifier).trained_on)
        made_of = dict.fromkeys(columns, mine)
    if config.backbone:
        made_of |= {
            name: {"backbone": embeddings.digest(config.backbone)} for name in columns if name != MARGIN
        }
    return Choice(rule=config.keep, arguments={RULE: config.keep, **made_of}, seen=seen, through=through)


def measures(config: Generate, choice: Choice, train: ImageSet | None) -> dict[str, Callable[[], Any]]:
    """Column -> what loads its measure: of an image, its class and its prompt."""

    def distance() -> Callable[[Image.Image, str, str], float]:
        assert train is not None
        features, photos = Features(config, choice), train.photos
        band = functools.cache(
            lambda label: Band(features.of_photos([p for p in photos if p.label == label]))
        )
        return lambda image, label, prompt: band(label).distance(features.of(image))

    def own() -> Callable[[Image.Image, str, str], list[float]]:
        features = Features(config, choice)
        return lambda image, label, prompt: features.of(image).tolist()

    def clip() -> Callable[[Image.Image, str, str], float]:
        features, read = Features(config, choice), embeddings.of_text(config.backbone, torch.device("cpu"))
        text = functools.cache(lambda prompt: unit(read(prompt)))
        return lambda image, label, prompt: float(features.of(image) @ text(prompt))

    return {DISTANCE: distance, FEATURES: own, CLIP: clip}


class Features:
    """Features of length 1 of the backbone, else of the classifier; sampled and real images go one path."""

    def __init__(self, config: Generate, choice: Choice) -> None:
        device = torch.device("cpu")
        if config.backbone:
            self.embed = embeddings.of_backbone(config.backbone, device)
            self.size, self.through = embeddings.SIDE, choice.through
        else:
            assert config.screen_classifier is not None
            model, record = classifier.load(config.screen_classifier)
            self.embed = embeddings.of_classifier(model, device)
            self.size, self.through = record.size, min(choice.through, record.through or choice.through)

    def of(self, image: Image.Image) -> np.ndarray:
        """(D,) of one image."""
        return unit(self.embed(np.stack([sized(image, self.size, self.through)])))[0]

    def of_photos(self, photos: Sequence[Photo]) -> np.ndarray:
        """(N, D) of real photos."""
        return unit(self.embed(pixels(photos, self.size, self.through)))


def unit(rows: np.ndarray) -> np.ndarray:
    """(..., D) float32 -> the same directions at length 1; zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


class Band:
    """Real photos of a class, by their (N, D) features of length 1, N >= 2."""

    def __init__(self, real: np.ndarray) -> None:
        alike = real @ real.T
        np.fill_diagonal(alike, -np.inf)
        self.real, self.width = real, max(float(np.quantile(1 - alike.max(axis=1), BAND)), LEAST)

    def distance(self, features: np.ndarray) -> float:
        """1 - cosine to the nearest photo, over the `BAND` quantile of what these have to each other."""
        return float(1 - (self.real @ features).max()) / self.width


def choose(
    rule: str, places: Sequence[Sequence[Mapping[str, Any]]], *salt: object
) -> dict[int, tuple[bool, float]]:
    """Places of rows -> by the rows' index whether each is kept, and its score; one of each place is.

    Rows have ``index`` and the columns of the rule. The score is what the rule looked at; of ``random`` a
    number drawn for the row, of ``diverse`` 1 - cosine to the nearest row kept before, 2 without any.
    """
    found: dict[int, tuple[bool, float]] = {}
    kept: list[np.ndarray] = []
    for rows in places:
        scores = _scores(rule, rows, kept, salt)
        best = max(range(len(rows)), key=lambda n: (_preference(rule, rows[n], scores[n]), -n))
        if rule == "diverse":
            kept.append(np.array(rows[best][FEATURES], np.float32))
        found |= {row["index"]: (n == best, scores[n]) for n, row in enumerate(rows)}
    return found


def _scores(
    rule: str, rows: Sequence[Mapping[str, Any]], kept: Sequence[np.ndarray], salt: Sequence[object]
) -> list[float]:
    if rule == "random":
        return [stable_hash(KEEP, *salt, row["index"]) / 2**63 for row in rows]
    if rule == "diverse":
        features = np.array([row[FEATURES] for row in rows], np.float32)
        near = (np.stack(kept) @ features.T).max(axis=0) if kept else np.full(len(rows), -1)
        return [float(1 - one) for one in near]
    return [row[COLUMNS[rule][0]] for row in rows]


def _preference(rule: str, row: Mapping[str, Any], score: float) -> tuple[float, ...]:
    """What the kept row of a place has most of."""
    if rule == "hard":
        fits = row[MARGIN] >= 0 and row[DISTANCE] <= 1
        return (1, -score) if fits else (0, score)
    return (-score,) if rule == "near" else (score,)
