"""Captions: the class, and what can be told of a photo without a model."""

from dataclasses import replace

import numpy as np

from mini.traits import Traits
from orchard.images import traits as measures
from orchard.images.traits import COLOURS, NO, UNSAID, YES

TEMPLATE = "a photo of {label}"
WORDS = {
    "single": measures.WORDS["single"],
    "whole": {YES: "whole", NO: "cut"},
    "close": measures.WORDS["close"],
    "letterboxed": {True: measures.LETTERBOXED},
}
"""What may stand at the end of a caption, by trait and value."""
KEPT = 0.7
PLAIN = 0.3
PAPER, ARTICLE = 0.3, 0.3
DROPPED = 0.1


def caption(label: str, traits: Traits, *, paper: bool = False, article: bool = False) -> str:
    """As in ``a photo of a red and green apple, blue background, single, whole``.

    ``paper`` says ``on blue paper`` instead, where the ground is plain; ``article`` puts an article.
    """
    kinds = " and ".join(colour for colour in traits.colours if colour != label)
    words = " ".join(filter(None, (kinds, label)))
    if article:
        words = ("an " if words[0] in "aeiou" else "a ") + words
    text, ground = TEMPLATE.format(label=words), traits.ground
    if traits.plain and ground:
        text += f" on {ground} paper" if paper else f", {ground} background"
    elif ground:
        text += f", {ground} scene background" if ground in COLOURS else ", scene background"
    said = (WORDS[name].get(getattr(traits, name), "") for name in WORDS)
    return ", ".join([text, *filter(None, said)])


def draw(label: str, traits: Traits, rng: np.random.Generator) -> str:
    """A caption of one picture that says each trait in `KEPT` of the draws.

    In `PLAIN` of them it says none, whatever there would be to say: else the plain caption would come to
    mean a scene, of which least can be told. `DROPPED` of the captions are empty, for classifier-free
    guidance.
    """
    chances = rng.random(4 + len(WORDS))
    if chances[0] < DROPPED:
        return ""
    if chances[1] < PLAIN:
        return TEMPLATE.format(label=label)
    keep = dict(zip(("colours", "ground", *WORDS), rng.random(2 + len(WORDS)) < KEPT, strict=True))
    silent = {"colours": (), "ground": "", "letterboxed": False}
    left = {name: silent.get(name, UNSAID) for name, said in keep.items() if not said}
    said = replace(traits, **left)
    if not traits.plain and keep["ground"] and (not traits.ground or chances[4] < 0.5):
        said = replace(said, ground="scene")
    return caption(label, said, paper=chances[2] < PAPER, article=chances[3] < ARTICLE)


def vocabulary(names: tuple[str, ...]) -> list[str]:
    """Texts in which every word of every caption stands."""
    colours = [f"a photo of {colour} and {colour} paper" for colour in COLOURS]
    ends = [word for words in WORDS.values() for word in words.values()]
    return [*map(TEMPLATE.format_map, ({"label": name} for name in names)), *colours,
            "a photo of an apple on scene background", *ends]  # fmt: skip
