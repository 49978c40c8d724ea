"""What keeps a sampled image out of the set: screens that look at one image, alone or beside real ones.

Every image is judged by itself, never as one of a batch, so that the verdict does not depend on its company.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from generate.config import Generate
from generate.planning.jobs import Job
from generate.screening import deduplicate
from orchard.datasets import sources
from orchard.images.framing import FITS
from orchard.images.images import DECODING, TRAIN, ImageSet, sha256, sized
from orchard.images.splits import require_split
from orchard.images.thumbnails import FARTHEST, Originals, Thumbnails, of_image, of_photos

FLAT = 4.0
"""Grey levels out of 255: a standard deviation below this is a flat image."""
COLUMNS = {
    "flat": "contrast",
    "duplicate": "phash",
    "memorised": "nearest_train",
    "off_class": "class_margin",
}
Measure = Callable[[Image.Image, str], float]


@dataclass(frozen=True, kw_only=True)
class Screen:
    """One measure of an image and its class; below ``least`` the image is rejected."""

    name: str
    least: float
    measure: Measure


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The screens of a run before anything is loaded: what identifies them, and what they have seen."""

    names: tuple[str, ...]
    arguments: dict[str, Any]
    """Screen -> what decides its verdicts."""
    seen: dict[str, list[str]]
    """Screen -> SHA-256 of the real images that it compares with, or that its classifier has seen."""
    train: ImageSet | None = None

    def marked(self, job: Job) -> Job:
        """The job with these screens in its header: rows screened otherwise may not stand beside its own."""
        arguments = job.header.arguments | {"screens": self.arguments}
        return replace(job, header=replace(job.header, arguments=arguments, screened_with=self.seen))


def plan(config: Generate, planned: Sequence[Job]) -> Plan:
    """Find what the screens need, without decoding an image or loading a model.

    Raises:
        UserError: the real set or the classifier cannot be read, or does not know a class.
    """
    names = tuple(name for name in COLUMNS if name in config.screens)
    arguments: dict[str, Any] = {}
    seen: dict[str, list[str]] = {}
    train = None
    if "flat" in names:
        arguments["flat"] = {"least": FLAT}
    if "duplicate" in names:
        arguments["duplicate"] = {"bits": deduplicate.BITS}
    if "memorised" in names:
        train = _train(config)
        seen["memorised"] = sorted(train.hashes())
        hashes = "".join(seen["memorised"])
        arguments["memorised"] = {
            "train": sha256(hashes.encode()),
            "framings": list(FITS),
            "decoding": DECODING,
            "farthest": FARTHEST,
        }
    if "off_class" in names:
        seen["off_class"], arguments["off_class"] = _classifier(config, planned)
    return Plan(names=names, arguments=arguments, seen=seen, train=train)


def _train(config: Generate) -> ImageSet:
    """The real training images; the test split stays unseen."""
    images = sources.load(config.data)
    require_split(images)
    return images.of(TRAIN)


def _classifier(config: Generate, planned: Sequence[Job]) -> tuple[list[str], dict[str, str]]:
    from orchard.classifiers import classifier
    from orchard.files import atomic

    assert config.screen_classifier is not None
    record = classifier.read(config.screen_classifier)
    classifier.require_classes(record, [job.label for job in planned])
    digest = atomic.file_hash(classifier.find(config.screen_classifier))
    return sorted(record.trained_on), {"classifier": digest}


class Screens:
    """The screens of a plan with their references and models loaded."""

    def __init__(self, config: Generate, plan: Plan) -> None:
        makers: dict[str, Callable[[], Screen]] = {
            "flat": lambda: Screen(name="flat", least=FLAT, measure=contrast),
            "memorised": lambda: memorised(_thumbnails(plan)),
            "off_class": lambda: _off_class(config),
        }
        self.hashes = "duplicate" in plan.names  # judged between rounds, over all images of a class
        self.screens = [makers[name]() for name in plan.names if name != "duplicate"]

    def judge(self, image: Image.Image, label: str) -> dict[str, Any]:
        """The columns that the screens fill: what each measured, and the first one's name that says no."""
        found: dict[str, Any] = {"reason": "", "score": None}
        if self.hashes:
            found["phash"] = deduplicate.phash(image)
        for screen in self.screens:
            value = screen.measure(image, label)
            found[COLUMNS[screen.name]] = value
            if not value >= screen.least and not found["reason"]:
                found |= {"reason": screen.name, "score": value}
        return found


def contrast(image: Image.Image, label: str = "") -> float:
    """Standard deviation of the grey levels, 0 to 127.5."""
    return float(np.asarray(image.convert("L"), dtype=np.float64).std())


def memorised(train: Thumbnails) -> Screen:
    """Thumbnails of training images -> the screen that rejects near copies of them."""
    originals = Originals(train)

    def distance(image: Image.Image, label: str) -> float:
        return float(originals.nearness(of_image(image))[0])

    return Screen(name="memorised", least=1.0, measure=distance)


def _thumbnails(plan: Plan) -> Thumbnails:
    assert plan.train is not None
    return of_photos(plan.train.photos)


def _off_class(config: Generate) -> Screen:
    """The screen that rejects what a classifier takes for another class."""
    import torch

    from orchard.classifiers import classifier
    from orchard.classifiers.predict import probabilities

    assert config.screen_classifier is not None
    model, record = classifier.load(config.screen_classifier)
    device = torch.device("cpu")

    def margin(image: Image.Image, label: str) -> float:
        pixels = np.stack([sized(image, record.size, record.through)])
        found = probabilities(model, pixels, device, torch.float32)[0]
        own = record.classes.index(label)
        return float(found[own] - np.delete(found, own).max())

    return Screen(name="off_class", least=0.0, measure=margin)
