"""Ways to make an arm's synthetic images, by name: what finetune and generate are asked for besides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NONE, GIVEN, AUTO = "none", "given", "auto"
"""Real images alone; the set in ``--synthetic``; whichever of the others validation images favour."""
TUNED = "tuned"
ARM_PHOTOS = "PHOTOS"
"""Stands in the options for the folder of the arm's real images."""
CAPTIONS = ("--captions", "context")


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A way to make images from an arm's real images, by the commands a user has."""

    tuning: tuple[str, ...] | None = ()
    """Options of finetune, besides those of all arms; None where the base is sampled as it is."""
    sampling: tuple[str, ...] = ()
    """Options of generate, likewise."""

    @property
    def sees_photos(self) -> bool:
        """Whether its images depend on the arm's real images."""
        return self.tuning is not None or bool(self.sampling)

    @property
    def sees_boxes(self) -> bool:
        """Whether they depend on the boxes of these, too."""
        return self.tuning == CAPTIONS or "--repaint" in self.sampling


GENERATORS: Mapping[str, Generator] = {
    "untuned": Generator(tuning=None),
    TUNED: Generator(),
    "full": Generator(tuning=("--method", "full", "--learning_rate", "1e-5")),
    "textual_inversion": Generator(tuning=("--method", "textual_inversion", "--learning_rate", "5e-3")),
    "context": Generator(tuning=CAPTIONS, sampling=("--contexts", "shuffled")),
    "context:own": Generator(tuning=CAPTIONS, sampling=("--contexts", "own")),
    "repaint:background": Generator(sampling=("--repaint", "background")),
    "repaint:object": Generator(sampling=("--repaint", "object")),
    "repaint:centre": Generator(sampling=("--repaint", "centre")),
    "repaint:outpaint": Generator(sampling=("--repaint", "outpaint")),
    "img2img": Generator(sampling=("--image_guidance", ARM_PHOTOS, "--strength", "0.7")),
}
"""A further one is a line here. Those of equal ``tuning`` share their adapters."""
NAMES = (AUTO, NONE, GIVEN, *GENERATORS)


def place(name: str) -> int:
    """Where a generator stands among others; one that was chosen comes last."""
    return NAMES.index(name) if name in NAMES else len(NAMES)


def plain(kind: str) -> str:
    """What made the images of an arm of this kind, unless its record says otherwise."""
    return TUNED if kind in ("shots", "fold") else GIVEN


def chosen_among(names: Iterable[str]) -> str:
    """What records call the generator of an arm that chooses."""
    return f"{AUTO} of {', '.join(names)}"
