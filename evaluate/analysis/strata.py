"""Kinds of test images: on white or in a scene, one object or several; and the accuracy on each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from evaluate.analysis.intervals import Interval, accuracy_interval
from evaluate.analysis.predictions import correctness, tested
from evaluate.analysis.summary import ArmKey, arms
from evaluate.records.records import Record
from orchard.errors import UserError
from orchard.images import traits
from orchard.images.images import Photo

Strata = Mapping[str, Mapping[str, str]]
"""File -> what is told apart -> its kind: ``{"test/a.jpg": {"background": "white", "objects": "one"}}``."""
WHITE, BORDER = 230, 3
"""Least channel of a white pixel, and pixels of the border of an image that is reduced to 128."""
KINDS = {"background": ("white", "scene"), "objects": ("one", "several")}


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """One arm on one kind of test images."""

    arm: ArmKey
    what: str
    """`background` or `objects`."""
    kind: str
    images: int
    accuracy: float
    """Mean over runs, 0 to 1."""
    interval: Interval
    """95% interval of it (`accuracy_interval`)."""


def describe(photos: Iterable[Photo]) -> dict[str, dict[str, str]]:
    """The kinds of every photo; ``objects`` only where annotations have its boxes."""
    found = {}
    for photo in photos:
        kinds = {"background": background(photo.image())}
        if boxes := _count(photo):
            kinds["objects"] = "one" if boxes == 1 else "several"
        found[photo.path] = kinds
    return found


def background(image: Image.Image) -> str:
    """``white`` when the image's border is mostly white, else ``scene``."""
    white = traits.white_background(traits.reduced(image), WHITE, BORDER)
    return "white" if white else "scene"


def _count(photo: Photo) -> int:
    """Objects that have a box; 0 where the annotation cannot be read."""
    try:
        return len(photo.boxes())
    except UserError:
        return 0


def accuracies(records: Iterable[Record], strata: Strata) -> list[Stratum]:
    """Every arm on every kind of test images that occurs, arm after arm."""
    return [
        stratum
        for arm, runs in arms(records).items()
        for what, kinds in KINDS.items()
        for kind in kinds
        if (stratum := _stratum(arm, runs, strata, what, kind))
    ]


def _stratum(arm: ArmKey, runs: Sequence[Record], strata: Strata, what: str, kind: str) -> Stratum | None:
    files = [file for file in tested(runs) if strata.get(file, {}).get(what) == kind]
    if not files:
        return None
    right = np.stack([*correctness(runs, files).values()])
    return Stratum(
        arm=arm,
        what=what,
        kind=kind,
        images=len(files),
        accuracy=float(np.nanmean(right, axis=0).mean()),
        interval=accuracy_interval(right),
    )
