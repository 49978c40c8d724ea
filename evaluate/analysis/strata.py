"""Kinds of test images: on white or in a scene, one object or several, long or compact; accuracy on them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from evaluate.analysis.parts import Answers, Part
from evaluate.analysis.summary import ArmKey, arms, baseline
from evaluate.records.records import Record
from orchard.errors import UserError
from orchard.images import traits
from orchard.images.images import Photo

Strata = Mapping[str, Mapping[str, str]]
"""File -> what is told apart -> its kind: ``{"test/a.jpg": {"background": "white", "objects": "one"}}``."""
WHITE, BORDER = 230, 3
"""Least channel of a white pixel, and pixels of the border of an image that is reduced to 128."""
CLASS = "class"
KINDS = {"background": ("white", "scene"), "objects": ("one", "several"), "shape": ("long", "compact")}
LONG = 1.4
"""Of sides, from which on an image is `long`: much of its square is then padding, or is cut off."""


@dataclass(frozen=True, kw_only=True)
class Stratum(Part):
    """One arm on one class, or on one kind, of the test images."""

    arm: ArmKey
    what: str
    """`CLASS`, or one of `KINDS`."""
    kind: str
    """The class, or one of those in `KINDS`."""


def describe(photos: Iterable[Photo]) -> dict[str, dict[str, str]]:
    """The kinds of every photo; ``objects`` only where annotations have its boxes."""
    found = {}
    for photo in photos:
        image = photo.image()
        kinds = {"background": background(image), "shape": shape(image)}
        if boxes := _count(photo):
            kinds["objects"] = "one" if boxes == 1 else "several"
        found[photo.path] = kinds
    return found


def background(image: Image.Image) -> str:
    """``white`` when the image's border is mostly white, else ``scene``."""
    white = traits.white_background(traits.reduced(image), WHITE, BORDER)
    return "white" if white else "scene"


def shape(image: Image.Image) -> str:
    """``long`` when its long side is at least `LONG` times the other, else ``compact``."""
    return "long" if max(image.size) >= LONG * min(image.size) else "compact"


def _count(photo: Photo) -> int:
    """Objects that have a box; 0 where the annotation cannot be read."""
    try:
        return len(photo.boxes())
    except UserError:
        return 0


def accuracies(records: Iterable[Record], strata: Strata) -> list[Stratum]:
    """Every arm on every class and kind of test images that occurs, arm after arm."""
    found, strata_of = arms(records), []
    for arm, runs in found.items():
        alone = baseline(arm, found)
        real_only = found[alone] if alone else []
        answers = Answers(runs, real_only)
        parts = [(CLASS, name, part) for name, part in answers.recalls().items()]
        for (what, kind), columns in _by_kind(answers.files, strata).items():
            parts.append((what, kind, answers.part(columns)))
        strata_of += [Stratum(arm=arm, what=what, kind=kind, **vars(part)) for what, kind, part in parts]
    return strata_of


def _by_kind(files: Sequence[str], strata: Strata) -> dict[tuple[str, str], list[int]]:
    """The places of the files of every kind that occurs."""
    found = {
        (what, kind): [i for i, file in enumerate(files) if strata.get(file, {}).get(what) == kind]
        for what, kinds in KINDS.items()
        for kind in kinds
    }
    return {key: there for key, there in found.items() if there}
