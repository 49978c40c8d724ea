"""Ways to make an arm's synthetic images, by name: what finetune and generate are asked for besides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

NONE, GIVEN, AUTO, SEARCH = "none", "given", "auto", "search"
"""Real images alone; the set in ``--synthetic``; whichever of the others an arm's own real images favour;
likewise of recipes made of them (``--search``)."""
TUNED = "tuned"
ARM_PHOTOS, ARM_CLASSIFIER = "PHOTOS", "CLASSIFIER"
"""Stand in the options for the folder of the arm's real images, and for a classifier trained on them."""
CAPTIONS = ("--captions", "context")
UNSCREENED = ("--screens", "none")


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A way to make images from an arm's real images, by the commands a user has."""

    tuning: tuple[str, ...] | None = ()
    """Options of finetune, besides those of all arms; None where the base is sampled as it is."""
    sampling: tuple[str, ...] = ()
    """Options of generate, likewise."""
    model: Literal["", "gan", "vae"] = ""
    """What is trained from nothing, where it is no adapter: one model of all classes."""

    @property
    def trainer(self) -> str:
        """The command of finetune that trains it."""
        return f"finetune.train_{self.model or 'lora'}"

    @property
    def sees_photos(self) -> bool:
        """Whether its images depend on the arm's real images."""
        reads = {ARM_PHOTOS, ARM_CLASSIFIER, "--repaint"}
        return self.tuning is not None or not reads.isdisjoint(self.sampling)

    @property
    def weighs(self) -> bool:
        """Whether it has adapters, which can be sampled at a weight."""
        return self.tuning is not None and "--method" not in self.tuning

    @property
    def sees_boxes(self) -> bool:
        """Whether they depend on the boxes of these, too."""
        return self.tuning == CAPTIONS or "--repaint" in self.sampling


GENERATORS: Mapping[str, Generator] = {
    "untuned": Generator(tuning=None),
    TUNED: Generator(),
    "dora": Generator(tuning=("--method", "dora")),
    "full": Generator(tuning=("--method", "full", "--learning_rate", "1e-5")),
    "textual_inversion": Generator(tuning=("--method", "textual_inversion", "--learning_rate", "5e-3")),
    "context": Generator(tuning=CAPTIONS, sampling=("--contexts", "shuffled")),
    "context:own": Generator(tuning=CAPTIONS, sampling=("--contexts", "own")),
    "repaint:background": Generator(sampling=("--repaint", "background")),
    "repaint:object": Generator(sampling=("--repaint", "object")),
    "repaint:centre": Generator(sampling=("--repaint", "centre")),
    "repaint:outpaint": Generator(sampling=("--repaint", "outpaint")),
    "img2img": Generator(sampling=("--image_guidance", ARM_PHOTOS, "--strength", "0.7")),
    # Images much like each other are what these two are known for: screened out, they would go unmeasured.
    "gan": Generator(model="gan", sampling=UNSCREENED),
    "vae": Generator(model="vae", sampling=UNSCREENED),
}
"""A further one is a line here. Those of equal ``tuning`` share their adapters."""
NAMES = (AUTO, NONE, GIVEN, *GENERATORS)


def place(name: str) -> int:
    """Where a generator stands among others; one that was chosen comes last."""
    return NAMES.index(name) if name in NAMES else len(NAMES)


def plain(kind: str) -> str:
    """What made the images of an arm of this kind, unless its record says otherwise."""
    return TUNED if kind in ("shots", "fold") else GIVEN


def chosen_among(kind: str, names: Iterable[str]) -> str:
    """What records call the generator of an arm that chooses, by `AUTO` or `SEARCH`."""
    return f"{kind} of {', '.join(names)}"


def was_chosen(name: str) -> bool:
    """Whether records call a generator so whose arm chose it."""
    return name.partition(" of ")[0] in (AUTO, SEARCH)
