"""What is measured of a sampled image, and which screens keep it out of the set.

Every image is judged by itself, never as one of a batch, so that the verdict does not depend on its company.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from generate.config import Generate
from generate.screening import choice, near_hashes, verdicts
from generate.screening.choice import Choice
from orchard import shards
from orchard.classifiers import classifier
from orchard.datasets import sources
from orchard.files import atomic
from orchard.images.framing import FITS
from orchard.images.images import DECODING, TRAIN, ImageSet, sha256, sized
from orchard.images.splits import require_split
from orchard.images.thumbnails import FARTHEST, Originals, Thumbnails, of_image, of_photos
from orchard.shards import ShardHeader

FLAT = 4.0
"""Grey levels out of 255: a standard deviation below this is a flat image."""
COLUMNS = {
    "flat": "contrast",
    "duplicate": "phash",
    "memorised": "nearest_train",
    "off_class": choice.MARGIN,
}
BY_MODELS = (choice.MARGIN, choice.DISTANCE, choice.FEATURES, choice.CLIP)
"""Columns whose measures run a network, which serves one image at a time."""
MEASURED = tuple(dict.fromkeys([*COLUMNS.values(), *BY_MODELS]))
"""Every column that holds a measure of an image."""
LEAST = {"flat": FLAT, "memorised": 1.0, "off_class": 0.0}
"""Screen -> what an image that it keeps has at least in its column."""
Measure = Callable[[Image.Image, str, str], Any]
"""Image, class and prompt -> the value of a column."""


@dataclass(frozen=True, kw_only=True)
class ScreenPlan:
    """Screens and choice of a run before anything is loaded: what identifies them, what they have seen."""

    names: tuple[str, ...]
    arguments: dict[str, Any]
    """Screen -> what decides its verdicts."""
    seen: dict[str, list[str]]
    """Screen -> SHA-256 of the real images that it compares with, or that its classifier has seen."""
    train: ImageSet | None = None
    choice: Choice | None = None

    @property
    def columns(self) -> list[str]:
        """What is measured of every image."""
        chosen_by = self.choice.columns if self.choice else ()
        return list(dict.fromkeys([*(COLUMNS[name] for name in self.names), *chosen_by]))

    def marked(self, header: ShardHeader) -> ShardHeader:
        """The header with these screens in it: rows screened otherwise may not stand beside its own."""
        arguments = {key: value for key, value in header.arguments.items() if key != choice.KEEP}
        arguments["screens"] = self.arguments
        seen = self.seen
        if self.choice:
            arguments[choice.KEEP] = self.choice.arguments
            seen = {**seen, choice.KEEP: self.choice.seen}
        return replace(header, arguments=arguments, screened_with=seen)


def plan(config: Generate, labels: Sequence[str], resolution: int = 0) -> ScreenPlan:
    """Find what the screens of these classes need, without decoding an image or loading a model.

    ``resolution`` is that of the images in pixels, by which real ones go where features are compared.

    Raises:
        UserError: the real set or the classifier cannot be read, or does not know a class.
    """
    names = tuple(name for name in COLUMNS if name in config.screens)
    chosen = choice.plan(config, resolution)
    train = _train(config) if "memorised" in names or (chosen and chosen.compares) else None
    arguments: dict[str, Any] = {}
    seen: dict[str, list[str]] = {}
    if "flat" in names:
        arguments["flat"] = {"least": FLAT}
    if "duplicate" in names:
        arguments["duplicate"] = {"bits": near_hashes.BITS}
    if "memorised" in names:
        assert train is not None
        seen["memorised"] = sorted(train.hashes())
        hashes = "".join(seen["memorised"])
        arguments["memorised"] = {
            "train": sha256(hashes.encode()),
            "framings": list(FITS),
            "decoding": DECODING,
            "farthest": FARTHEST,
        }
    if config.screen_classifier is not None:
        record = classifier.read(config.screen_classifier)
        classifier.require_classes(record, labels)
        if "off_class" in names:
            seen["off_class"] = sorted(record.trained_on)
            digest = atomic.file_hash(classifier.find(config.screen_classifier))
            arguments["off_class"] = {"classifier": digest}
    if chosen:
        chosen = chosen.beside(train, labels)
    return ScreenPlan(names=names, arguments=arguments, seen=seen, train=train, choice=chosen)


def _train(config: Generate) -> ImageSet:
    """The real training images; the test split stays unseen."""
    images = sources.load(config.data)
    require_split(images)
    return images.of(TRAIN)


def made_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Column -> what decides its values, beside the image: of the arguments of a set."""
    screens = arguments.get("screens", {})
    found = {COLUMNS[name]: what for name, what in screens.items() if name not in ("flat", "duplicate")}
    found |= {key: what for key, what in arguments.get(choice.KEEP, {}).items() if key != choice.RULE}
    return found


class Screens:
    """The measures of a plan with their references and models loaded; for several threads at once."""

    def __init__(self, config: Generate, plan: ScreenPlan) -> None:
        makers: dict[str, Callable[[], Measure]] = {
            "contrast": lambda: lambda image, label, prompt: contrast(image),
            "phash": lambda: lambda image, label, prompt: verdicts.phash(image),
            "nearest_train": lambda: memorised(_thumbnails(plan)),
            choice.MARGIN: lambda: _margin(config),
        }
        if plan.choice:
            makers |= choice.measures(config, plan.choice, plan.train)
        self.measures = {column: makers[column]() for column in plan.columns}
        self.turn = threading.Lock()
        self.names = [name for name in plan.names if name in LEAST]
        self.candidate = "" if plan.choice is None else shards.NOT_CHOSEN

    def judge(self, image: Image.Image, label: str, prompt: str = "") -> dict[str, Any]:
        """The columns that the screens fill: what was measured, and the first screen that says no."""
        found = self.measured(image, label, prompt, self.measures)
        return found | self.verdict(found)

    def measured(self, image: Image.Image, label: str, prompt: str, columns: Iterable[str]) -> dict[str, Any]:
        """These columns of an image, as a shard holds them."""
        found = {}
        for column in columns:
            with self.turn if column in BY_MODELS else nullcontext():
                value = self.measures[column](image, label, prompt)
            found[column] = float(np.float32(value)) if isinstance(value, float) else value
        return found

    def verdict(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """``reason`` and ``score``: the first screen that says no; else a candidate waits to be chosen."""
        for name in self.names:
            value = measured[COLUMNS[name]]
            if not value >= LEAST[name]:
                return {"reason": name, "score": value}
        return {"reason": self.candidate, "score": None}


def contrast(image: Image.Image) -> float:
    """Standard deviation of the grey levels, 0 to 127.5."""
    return float(np.asarray(image.convert("L"), dtype=np.float64).std())


def memorised(train: Thumbnails) -> Measure:
    """Thumbnails of training images -> how near an image is to one of them; below 1 it is a copy."""
    originals = Originals(train)
    return lambda image, label, prompt: float(originals.nearness(of_image(image))[0])


def _thumbnails(plan: ScreenPlan) -> Thumbnails:
    assert plan.train is not None
    return of_photos(plan.train.photos)


def _margin(config: Generate) -> Measure:
    """A classifier's probability of the label less that of its next choice."""
    import torch

    from orchard.classifiers.predict import probabilities

    assert config.screen_classifier is not None
    model, record = classifier.load(config.screen_classifier)
    device = torch.device("cpu")

    def margin(image: Image.Image, label: str, prompt: str) -> float:
        pixels = np.stack([sized(image, record.size, record.through)])
        found = probabilities(model, pixels, device, torch.float32)[0]
        own = record.classes.index(label)
        return float(found[own] - np.delete(found, own).max())

    return margin
