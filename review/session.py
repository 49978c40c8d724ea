"""What the page shows and does: images with what was decided on them, and the file that keeps it."""

import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from orchard import decisions
from orchard.decisions import Decision, Key, Verb
from orchard.files import checked_json
from review.items import Item, picture

THUMBNAIL, LARGE = 256, 1024
"""Pixels of the longer side."""
LOSSLESS = 256
"""Images of up to so many pixels a side keep every one of them."""
MOST_THUMBNAILS = 10_000
"""That stay in memory, about 20 KB each; the others are made again whenever they are shown."""
VERBS: tuple[Verb, ...] = ("keep", "reject", "clear", "note", "undo")
Nearest = Callable[[Item], Iterable[tuple[int, str]]]
"""An image -> numbers of others that go beside it, and what to say of each."""


class Session:
    """One reviewer in front of one set.

    Args:
        path: the file of the decisions.
        items: the images that are decided on.
        beside: real photos that are shown beside them, numbered on from ``items``.
        facts: what else the page is told.
    """

    def __init__(
        self,
        path: Path,
        reviewer: str,
        items: Sequence[Item],
        beside: Sequence[Item] = (),
        nearest: Nearest = lambda item: (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.reviewer, self.facts = path, reviewer, facts or {}
        self.items, self.pictures = items, [*items, *beside]
        self.thumbnails: dict[int, bytes] = {}
        self.nearest = nearest
        self._numbers = {item.key: number for number, item in enumerate(items)}
        self._lock = threading.Lock()
        self._read()

    def _read(self) -> None:
        self._actions = decisions.read(self.path)
        self._current = decisions.current(self._actions)

    def decided(self) -> dict[int, Decision]:
        """Number of an image -> what holds for it."""
        return {self._numbers[key]: one for key, one in self._current.items() if key in self._numbers}

    def page(self) -> dict[str, Any]:
        """Everything that the page lists, with what others have decided meanwhile."""
        with self._lock:
            self._read()
            decided = self.decided()
        return {
            **self.facts,
            "reviewer": self.reviewer,
            "items": [_listed(item, decided.get(n, Decision())) for n, item in enumerate(self.items)],
            "beside": [
                {"number": number, "label": item.label, "name": item.name}
                for number, item in enumerate(self.pictures)
                if number >= len(self.items)
            ],
        }

    def act(self, asked: Any) -> dict[str, Any]:
        """Save what the page asks for, ``{"verb", "images", "note"}``; what has changed by it.

        Raises:
            ValueError: it asks for something else.
            WriteError: it cannot be saved, so nothing has changed.
        """
        given = checked_json.table({"verb": str, "images": list[int], "note": str}, asked)
        verb, numbers, note = given["verb"], dict.fromkeys(given["images"]), given["note"]
        if verb not in VERBS:
            raise ValueError(f"{checked_json.shown(verb)} is none of {', '.join(VERBS)}")
        if any(not 0 <= number < len(self.items) for number in numbers):
            raise ValueError("no such image")
        if len(note) > decisions.MOST_NOTE:
            raise ValueError(f"a note has at most {decisions.MOST_NOTE} characters")
        if (verb == "undo") == bool(numbers):
            raise ValueError("undo names no images, everything else does")
        with self._lock:
            keys = self._undo() if verb == "undo" else self._do(verb, numbers, note)
            changed = {self._numbers[key]: self._current.get(key, Decision()) for key in keys}
        return {"changed": [{"number": number, **_said(one)} for number, one in changed.items()]}

    def _do(self, verb: Verb, numbers: Iterable[int], note: str) -> Iterable[Key]:
        """Save it; the images that it changes."""
        images = dict(self.items[number].key for number in numbers)
        action = decisions.act(self.path, verb, images, self.reviewer, note)
        self._actions.append(action)
        self._current |= decisions.after(action, self._current)
        return images.items()

    def _undo(self) -> Iterable[Key]:
        """Take the reviewer's last one back, in whatever page it was made; the images that change here."""
        self._actions, before = decisions.read(self.path), self._current
        left = decisions.standing(self._actions)
        place = decisions.last_of(left, self.reviewer)
        if place is None:
            return []
        self._actions.append(decisions.act(self.path, "undo", {}, self.reviewer))
        self._current = decisions.current(self._actions)
        images = {*left[place].images.items()}
        return [one for one in self._numbers if one in images or before.get(one) != self._current.get(one)]

    def beside(self, number: int) -> list[dict[str, Any]]:
        """What goes beside an image that is shown large."""
        item = self.items[number]
        found = [(one.other, one.text) for one in item.findings if one.other is not None]
        found += self.nearest(item)
        return [{"number": other, "text": text, "name": self.pictures[other].name} for other, text in found]

    def thumbnail(self, number: int) -> bytes:
        """A small picture as WebP; of about `MOST_THUMBNAILS` made once."""
        found = self.thumbnails.get(number) or self.picture(number, THUMBNAIL)
        if len(self.thumbnails) < MOST_THUMBNAILS:
            self.thumbnails[number] = found
        return found

    def picture(self, number: int, side: int = LARGE) -> bytes:
        """The picture as WebP, decoded and encoded anew: no byte of a file reaches the browser."""
        return encoded(picture(self.pictures[number]), side)


def encoded(image: Image.Image, side: int) -> bytes:
    """The image as WebP of at most ``side`` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    exact = max(small.size) <= LOSSLESS and small.size == image.size
    small.save(buffer, "WEBP", lossless=exact, quality=70 if exact else 85, method=1)
    return buffer.getvalue()


def _said(decision: Decision) -> dict[str, str]:
    return {"verdict": decision.verdict, "note": decision.note, "by": decision.reviewer, "at": decision.time}


def _listed(item: Item, decision: Decision) -> dict[str, Any]:
    return {
        "name": item.name,
        "label": item.label,
        "split": item.split,
        "prompt": item.prompt,
        "context": item.context,
        "measures": {name: float(f"{value:.4g}") for name, value in item.measures.items()},
        "findings": [{"kind": one.kind, "text": one.text} for one in item.findings],
        **_said(decision),
    }
