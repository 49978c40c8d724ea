"""Contexts of training photos: what an adapter's header keeps of them, by class.

A context is all that a caption says besides the class: background, number, framing. The colour of the object
is kept apart, since it may belong to the class: contexts go from one class to another, colours do not.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from orchard import prompt_template
from orchard.files import checked_json

MOST = 256
"""Contexts of a class in a header: the most common ones."""
LONGEST = 200
"""Characters of a context or colour; text encoders of 77 tokens read about 300 in all."""
ARTICLE = r"(?:\bof\s+)?(?:\b(?:an?|the|some)\s+)?"
OPENING = re.compile(r"^(?:an?\s+)?(?:photo|photograph|picture|image)\s+(?:of\s+)?", re.IGNORECASE)


class Bank(TypedDict):
    """How many training photos of a class have each context, and each colour; the colour may be empty."""

    contexts: dict[str, int]
    colours: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is said of a photo besides its class."""

    context: str
    colour: str = ""

    def prompt(self, template: str, label: str) -> str:
        """The class prompt with it, as in ``a photo of red apple, white background, single``."""
        said = prompt_template.fill(template, coloured(label, self.colour))
        return f"{said}, {self.context}" if self.context else said


def coloured(label: str, colour: str) -> str:
    """The class name after its colour, if it has one."""
    return f"{colour} {label}" if colour else label


def without_class(text: str, label: str) -> str:
    """A context from a sentence: the class name goes, in the plural too, and what would be left hanging.

    >>> without_class("A photo of two Apples, on a table.", "apple")
    'two, on a table'
    """
    *first, last = (re.escape(word) for word in re.split(r"[\s_-]+", label.strip()))
    last = rf"(?:{last}(?:e?s)?|{last[:-1]}ies)" if last.endswith("y") else rf"{last}(?:e?s)?"
    name = r"[\s_-]+".join([*first, last])
    plain = "".join(c if c.isprintable() and c not in "{}" else " " for c in text)
    left = re.sub(rf"{ARTICLE}(?<!\w){name}(?!\w)", " ", plain, flags=re.IGNORECASE)
    left = OPENING.sub("", " ".join(left.split()))
    left = re.sub(r"\s+([,.;:!?])", r"\1", left).strip(" ,.;:!?-")
    return left if len(left) <= LONGEST else left[:LONGEST].rpartition(" ")[0].rstrip(" ,.;:!?-")


def require_plain(text: str) -> None:
    """Raise `ValueError` unless the text can stand in a prompt, where braces begin a place-holder."""
    checked_json.require_characters(text)
    if len(text) > LONGEST or not text.isprintable() or set("{}") & set(text):
        raise ValueError(
            f"{checked_json.shown(text)} is no context: one line of at most {LONGEST} characters, no braces"
        )


def bank(captions: Sequence[Caption]) -> Bank:
    """The contexts and colours of a class's photos with their counts: the most common ones."""
    return Bank(
        contexts=_common(caption.context for caption in captions),
        colours=_common(caption.colour for caption in captions),
    )


def too_many(captions: Sequence[Caption]) -> bool:
    """Whether some of their contexts have no place in a `bank`."""
    return len({caption.context for caption in captions}) > MOST


def _common(words: Iterable[str]) -> dict[str, int]:
    ordered = sorted(Counter(words).items(), key=lambda pair: (-pair[1], pair[0]))
    return dict(ordered[:MOST])


def require_valid(banks: Mapping[str, Bank]) -> None:
    """Raise `ValueError` unless the banks of a header, which anybody may have written, can be drawn from."""
    for label, one in banks.items():
        for kind in (one["contexts"], one["colours"]):
            if not 0 < len(kind) <= MOST or min(kind.values()) < 1:
                raise ValueError(f"the contexts of {checked_json.shown(label)} are no 1 to {MOST} counts")
            for text in kind:
                require_plain(text)
