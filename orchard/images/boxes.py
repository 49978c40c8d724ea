"""Boxes around the objects of a photo, from Pascal VOC, YOLO and COCO files that anybody may have written."""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from orchard.errors import UserError
from orchard.files import checked_json, size_limits

YOLO_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
LEAST = 1.0
"""Pixels of a box's side: less of it lies in the photo, if anything does."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")
TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
_log = logging.getLogger(__name__)


class Box(NamedTuple):
    """Edges in pixels from the left and the top of an upright image; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Annotated:
    """What a file says of one photo."""

    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    """(width, height) of the photo that the boxes are in; None where the file does not tell."""
    relative: bool = False
    """Whether the boxes are in shares of the upright photo's sides instead of pixels."""


@dataclass(frozen=True)
class Geometry:
    """A photo's size as its file has it, (width, height), and its EXIF orientation."""

    size: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of the photo as it is decoded."""
        return self.size[::-1] if self.orientation in TURNED else self.size


def placed(annotated: Annotated, photo: Geometry, name: str) -> tuple[Box, ...]:
    """The boxes in pixels of the upright photo, clipped to it; what is left of less than a pixel is dropped.

    A file that gives the size of the photo before it was turned upright has its boxes turned as well.

    Raises:
        UserError: the file gives another size.
    """
    width, height = photo.upright
    boxes = annotated.boxes
    if annotated.relative:
        boxes = tuple(Box(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in boxes)
    elif annotated.size not in (None, photo.upright):
        if annotated.size != photo.size:
            raise UserError(
                f"{name}: is {width} x {height} pixels, its boxes are for {annotated.size[0]} x "
                f"{annotated.size[1]}; correct the size in the annotation, or the photo"
            )
        boxes = tuple(_turned(box, photo) for box in boxes)
    inside = clipped(boxes, photo.upright)
    if len(inside) < len(boxes):
        left = len(boxes) - len(inside)
        _log.warning("warning: %s: %d of its boxes left out, which have no pixel of the photo", name, left)
    return inside


def clipped(boxes: Iterable[Box], size: tuple[int, int]) -> tuple[Box, ...]:
    """What lies of the boxes in an image of (width, height), at least a pixel of each side."""
    width, height = size
    cut = (Box(max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)) for x0, y0, x1, y1 in boxes)
    return tuple(box for box in cut if box.right - box.left >= LEAST and box.bottom - box.top >= LEAST)


def _turned(box: Box, photo: Geometry) -> Box:
    """A box of the photo as it is stored, in the upright one."""
    width, height = photo.size
    left, top, right, bottom = box
    columns = (top, bottom) if photo.orientation in (5, 8) else (height - bottom, height - top)
    rows = (left, right) if photo.orientation in (5, 6) else (width - right, width - left)
    return Box(columns[0], rows[0], columns[1], rows[1])


def voc(path: Path) -> Annotated:
    """A Pascal VOC file: its pixels count from 1 and include the last.

    Raises:
        UserError: it is none, or an object in it has no whole box.
    """
    with _named(path):
        return _voc(checked_json.read_bytes(path, size_limits.ANNOTATION))


def as_voc(boxes: Iterable[Box], size: tuple[int, int]) -> bytes:
    """The Pascal VOC file, as `voc` reads it, of boxes in an upright photo of ``size`` (width, height)."""
    root = ElementTree.Element("annotation")
    sides = ElementTree.SubElement(root, "size")
    for name, side in zip(("width", "height"), size, strict=True):
        ElementTree.SubElement(sides, name).text = str(side)
    for left, top, right, bottom in boxes:
        found = ElementTree.SubElement(ElementTree.SubElement(root, "object"), "bndbox")
        for name, edge in zip(CORNERS, (left + 1, top + 1, right, bottom), strict=True):
            ElementTree.SubElement(found, name).text = repr(edge)
    return ElementTree.tostring(root)


def _voc(data: bytes) -> Annotated:
    """Elements ``object/bndbox`` below the root; no tree is built, and no entity is ever declared."""
    parser = expat.ParserCreate()
    open_tags: list[str] = []
    objects: list[dict[str, str]] = []
    size: dict[str, str] = {}

    def start(tag: str, _: object) -> None:
        open_tags.append(tag)
        if len(open_tags) == 2 and tag == "object":
            objects.append({})

    def end(_: str) -> None:
        open_tags.pop()

    def text(words: str) -> None:
        match open_tags:
            case [_, "size", tag]:
                size[tag] = size.get(tag, "") + words
            case [_, "object", "bndbox", tag]:
                objects[-1][tag] = objects[-1].get(tag, "") + words

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)
    boxes = []
    for place, corners in enumerate(objects, 1):
        x0, y0, x1, y1 = (_number(corners.get(name), f"{name} of object {place}") for name in CORNERS)
        boxes.append(Box(x0 - 1, y0 - 1, x1, y1))
    sides = (int(_number(size.get(name, "0"), name)) for name in ("width", "height"))
    return Annotated(tuple(boxes), _size(*sides))


def _size(width: int, height: int) -> tuple[int, int] | None:
    """Annotators that cannot read a file write 0 x 0."""
    return (width, height) if width > 0 and height > 0 else None


def is_yolo(text: str) -> bool:
    """Whether every line that says something is ``class centre_x centre_y width height``."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return bool(lines) and all(
        len(words) == 5 and words[0].isdecimal() and all(map(YOLO_NUMBER.fullmatch, words[1:]))
        for words in lines
    )


def yolo(path: Path) -> Annotated:
    """A YOLO file, whose boxes are in shares of the upright photo; none where it is a caption instead.

    Raises:
        UserError: it cannot be read, or its values are no shares.
    """
    with _named(path):
        text = checked_json.read(path, size_limits.ANNOTATION)
        if not is_yolo(text):
            return Annotated()
        lines = [line.split()[1:] for line in text.splitlines() if line.strip()]
        rows = [[_number(word, "a value") for word in words] for words in lines]
        if large := [value for row in rows for value in row if not 0 <= value <= 1]:
            raise ValueError(f"{large[0]:g} is no share of a photo's side, 0 to 1")
    return Annotated(
        tuple(Box(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in rows), relative=True
    )


def coco(path: Path) -> Mapping[str, Annotated]:
    """A COCO file: what it says of each ``file_name``; annotations without a box (captions) do not count.

    Raises:
        UserError: it is none.
    """
    with _named(path):
        found = checked_json.table(
            {"images": list[dict[str, Any]], "annotations": list[dict[str, Any]]},
            checked_json.parse(checked_json.read_bytes(path)),
        )
        boxes: dict[object, dict[Box, None]] = defaultdict(dict)
        for place, one in enumerate(found["annotations"]):
            if "bbox" in one:
                where = f"annotations[{place}]."
                one = checked_json.table({"image_id": int | str, "bbox": list[float]}, one, where)
                boxes[one["image_id"]][_of_corner(one["bbox"], f"{where}bbox")] = None
        kinds = {"id": int | str, "file_name": str}
        images = [checked_json.table(kinds, one, f"images[{i}].") for i, one in enumerate(found["images"])]
        return {
            one["file_name"]: Annotated(
                tuple(boxes[one["id"]]),
                _size(*(checked_json.conform(int, one.get(side, 0), side) for side in ("width", "height"))),
            )
            for one in images
        }


def _of_corner(values: Sequence[float], where: str) -> Box:
    if len(values) != 4:
        raise ValueError(f"{where} has {len(values)} values instead of left, top, width and height")
    left, top, width, height = values
    return Box(left, top, left + width, top + height)


def _number(text: str | None, what: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else _refuse(what, text)


def _refuse(what: str, text: str | None) -> NoReturn:
    raise ValueError(f"{what} is {checked_json.shown(text)}, not a number")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors in reading the file as one line with its name."""
    try:
        yield
    # The parser's own among them, and unknown encodings.
    except (OSError, ValueError, LookupError, OverflowError, expat.ExpatError) as error:
        raise UserError(f"{path}: no boxes can be read from it ({error}); fix or remove it") from None
