"""Captions with contexts: read from the output, else the photo's own, a model's or measured; kept there."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from finetune.config import TrainLora, with_trigger
from finetune.data import captioner
from orchard.adapters import contexts
from orchard.adapters.contexts import Caption
from orchard.datasets import sidecars
from orchard.errors import UserError
from orchard.files import checked_json
from orchard.files.atomic import whole_file
from orchard.images import traits
from orchard.images.images import ImageSet, Photo

NAME = "captions.jsonl"


@dataclass(frozen=True, kw_only=True)
class ContextCaptions:
    """Of the photos of a run, by the hashes of their files; empty unless ``--captions context`` is given."""

    of: Mapping[str, Caption] = field(default_factory=dict)
    sources: Counter[str] = field(default_factory=Counter)
    """How many come from where, in words."""
    missing: Sequence[Photo] = ()
    """Photos that the captioner has not seen yet; the class prompt stands in for their captions."""
    captioner: Path | None = None
    """Folder of the model that sees them."""

    def by_class(self, photos: ImageSet) -> dict[str, list[Caption]]:
        """Those of the photos; empty without contexts."""
        found: dict[str, list[Caption]] = {}
        for photo in photos.photos:
            if photo.sha256 in self.of:
                found.setdefault(photo.label, []).append(self.of[photo.sha256])
        return found


def choose(
    config: TrainLora, photos: ImageSet, model: Path | None = None
) -> tuple[ImageSet, ContextCaptions]:
    """The photos with the texts that they are trained with; without one they take the class prompt.

    ``model`` is the folder of the captioner, if there is to be one.

    Raises:
        UserError: the captions of the output, or the boxes of a photo, cannot be read.
    """
    if config.captions == "own":
        marked = (
            replace(photo, text=with_trigger(config.trigger, photo.text)) if photo.text else photo
            for photo in photos.photos
        )
        return photos.keep(marked), ContextCaptions()
    if config.captions == "none":
        return photos.keep(replace(photo, text=None) for photo in photos.photos), ContextCaptions()
    padded = config.fit == "pad" and not config.buckets
    found = _find(config.output / NAME, photos.photos, model, padded=padded)

    def text(photo: Photo) -> str | None:
        caption = found.of.get(photo.sha256)
        return caption.prompt(config.template, photo.label) if caption else None

    return photos.keep(replace(photo, text=text(photo)) for photo in photos.photos), found


def _find(path: Path, photos: Sequence[Photo], model: Path | None, *, padded: bool) -> ContextCaptions:
    known = read(path)
    unknown = [photo for photo in photos if photo.sha256 not in known]
    own = {p.sha256: Caption(context=contexts.without_class(p.text, p.label)) for p in unknown if p.text}
    left = [photo for photo in unknown if not photo.text]
    with ThreadPoolExecutor() as pool:
        measured = {} if model else dict(pool.map(partial(_measure, padded=padded), left))
    there = {photo.sha256: known[photo.sha256] for photo in photos if photo.sha256 in known}
    sources = {f"from {path}": there, "of their own": own, "measured": measured}
    return ContextCaptions(
        of={**there, **own, **measured},
        sources=Counter({source: len(captions) for source, captions in sources.items() if captions}),
        missing=left if model else (),
        captioner=model,
    )


def _measure(photo: Photo, *, padded: bool) -> tuple[str, Caption]:
    image = photo.image()
    found = traits.of_image(image, photo.boxes())
    colour = " and ".join(colour for colour in found.colours if colour != photo.label)
    bars = padded and traits.shows_bars(found, image.size)
    return photo.sha256, Caption(context=traits.context(found, letterboxed=bars), colour=colour)


def read(path: Path) -> dict[str, Caption]:
    """The captions of a file that `save` made and anybody may have edited; none where there is no file.

    Raises:
        UserError: it cannot be read, or says two things of one photo.
    """
    found: dict[str, Caption] = {}
    for number, row in _rows(path):
        try:
            words = checked_json.table({"sha256": str, "context": str}, row)
            colour = checked_json.conform(str, row.get("colour", ""), "colour")
            for text in (words["context"], colour):
                contexts.require_plain(text)
            caption = Caption(context=words["context"], colour=colour)
            if found.setdefault(words["sha256"], caption) != caption:
                raise ValueError("an earlier line says something else of the same photo")
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}; fix the line or remove it") from None
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, object]]]:
    try:
        return list(sidecars.json_lines(path, checked_json.read(path)))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); fix or remove it") from None


def save(
    path: Path, captions: ContextCaptions, photos: Sequence[Photo], device: torch.device, *, show: bool
) -> None:
    """Add the captions that the file lacks, those that the captioner says from now on among them.

    Whatever stops the captioner, what it said is kept.
    """
    of = dict(captions.of)
    try:
        if captions.captioner and captions.missing:
            said = captioner.describe(captions.captioner, captions.missing, device, show=show)
            for photo, text in zip(captions.missing, said, strict=True):
                of[photo.sha256] = Caption(context=contexts.without_class(text, photo.label))
    finally:
        _add(path, {photo.sha256: (photo.path, of[photo.sha256]) for photo in photos if photo.sha256 in of})


def _add(path: Path, captions: Mapping[str, tuple[str, Caption]]) -> None:
    """Lines that are there stay as they are."""
    rows = [row for _, row in _rows(path)]
    there = {row.get("sha256") for row in rows}
    new = [
        {"file_name": file, "sha256": digest, "colour": caption.colour, "context": caption.context}
        for digest, (file, caption) in captions.items()
        if digest not in there
    ]
    if new:
        with whole_file(path) as aside:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in [*rows, *new])
            aside.write_text("".join(lines), encoding="utf-8")
