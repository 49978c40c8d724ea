"""Stand-ins for two image sets that are not ours to ship: drawings in the layout of each, with its quirks."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pictures
from PIL import Image, ImageChops, ImageOps

from orchard.datasets import demo

FRUIT = {
    "train": {"apple": 75, "banana": 73, "mixed": 20, "orange": 72},
    "test": {"apple": 19, "banana": 18, "mixed": 5, "orange": 18},
}
"""As many as the Kaggle set has. Numbers go on from one split to the other, as they do there."""
SIGNS = {
    "train": {"no_entry": 10, "priority_road": 18, "stop": 8, "turn_right_ahead": 7, "yield": 19},
    "test": {"no_entry": 3, "priority_road": 6, "stop": 2, "turn_right_ahead": 2, "yield": 6},
}
"""About a tenth of the real signs, in the same five classes."""
EVERY = 8
PNGS = ("RGB",) * 8 + ("P clear",) * 3 + ("P",) + ("RGBA",) * 4 + ("RGBA clear",) * 21
"""What each eighth file is, although it is named .jpg; its annotation gives the size as 0 x 0."""
UNTURNED = 3
"""The last files of the set have an EXIF orientation of 0, which is none."""
Box = tuple[int, int, int, int]


def fruit(root: Path) -> Path:
    """The Kaggle set "Fruit Images for Object Detection" as it is downloaded, but drawn and small."""
    drawings = _drawings()
    rows = [
        (split, label, index)
        for split, counts in FRUIT.items()
        for label, count in counts.items()
        for index in range(count)
    ]
    pngs = dict(zip(range(0, len(rows), EVERY), PNGS, strict=False))
    files = {}
    for number, (split, label, index) in enumerate(rows):
        labels = demo.CLASSES if label == "mixed" else (label,) * (2 if index % 3 == 0 else 1)
        parts = [_take(drawings[split, name], index + place) for place, name in enumerate(labels)]
        image, mask, boxes = _photo(parts, np.random.default_rng(number))
        if kind := pngs.get(number):
            data, size = _png(image, mask, kind, ("black", "white")[number // EVERY % 2]), (0, 0)
        else:
            data, size = _jpeg(image, unturned=number >= len(rows) - UNTURNED), image.size
        name = f"{label}_{index + 1 + (FRUIT['train'][label] if split == 'test' else 0)}"
        place = f"{split}_zip/{split}/{name}"
        files[f"{place}.jpg"] = data
        files[f"{place}.xml"] = _annotation(name, size, zip(labels, boxes, strict=True))
    return pictures.write(root, files)


def signs(root: Path) -> Path:
    """Class folders of small PNGs below train and test: noise with a colour for each class."""
    files = {}
    for split, counts in SIGNS.items():
        for hue, (label, count) in enumerate(counts.items()):
            colour = Image.new("HSV", (1, 1), (hue * 51, 255, 200)).convert("RGB").getpixel((0, 0))
            for index in range(count):
                size = (20 + index, 22 + index)
                sign = Image.blend(pictures.noise(len(files), size), Image.new("RGB", size, colour), 0.6)
                files[f"{split}/{label}/{index:05d}_00009.png"] = pictures.encoded(sign)
    return pictures.write(root, files)


def _drawings() -> dict[tuple[str, str], list[Image.Image]]:
    """By split and class, so that no drawing is in both splits."""
    found: dict[tuple[str, str], list[Image.Image]] = {}
    for photo in demo.render().photos:
        image = Image.open(io.BytesIO(photo.read()))
        found.setdefault((photo.split, photo.label), []).append(image)
    return found


def _take(drawings: Sequence[Image.Image], index: int) -> Image.Image:
    """The drawing at ``index``; past the last one they come again, mirrored."""
    image = drawings[index % len(drawings)]
    return ImageOps.mirror(image) if index // len(drawings) % 2 else image


def _photo(
    parts: Sequence[Image.Image], rng: np.random.Generator
) -> tuple[Image.Image, Image.Image, list[Box]]:
    """Fruits side by side in margins of any width; a mask of where they are; the box around each."""
    left, top, right, bottom = (int(margin) for margin in rng.integers(1, 40, 4))
    size = (left + demo.SIDE * len(parts) + right, top + demo.SIDE + bottom)
    image, mask, boxes = Image.new("RGB", size, parts[0].getpixel((0, 0))), Image.new("L", size), []
    for place, part in enumerate(parts):
        x, y = left + place * demo.SIDE, top
        plain = Image.new("RGB", part.size, part.getpixel((0, 0)))
        fruit = ImageChops.difference(part, plain).convert("L").point(lambda value: 255 * (value > 8))
        image.paste(part, (x, y))
        mask.paste(fruit, (x, y))
        x0, y0, x1, y1 = fruit.getbbox()
        boxes.append((x + x0, y + y0, x + x1, y + y1))
    return image, mask, boxes


def _jpeg(image: Image.Image, unturned: bool) -> bytes:
    exif = Image.Exif()
    if unturned:
        exif[pictures.ORIENTATION] = 0
    return pictures.encoded(image, "JPEG", exif=exif)


def _png(image: Image.Image, mask: Image.Image, kind: str, hidden: str) -> bytes:
    """A PNG of that mode; where it is clear, all but the fruit is, with the colour ``hidden`` under it."""
    mode, _, clear = kind.partition(" ")
    if clear:
        image = Image.composite(image, Image.new("RGB", image.size, hidden), mask)
    if mode == "P":
        image = image.quantize(64)
        return pictures.encoded(image, **({"transparency": image.getpixel((0, 0))} if clear else {}))
    image = image.convert(mode)
    if clear:
        image.putalpha(mask)
    return pictures.encoded(image)


def _annotation(name: str, size: tuple[int, int], objects: Iterable[tuple[str, Box]]) -> bytes:
    """In the format of Pascal VOC."""
    boxes = "".join(
        f"<object><name>{label}</name><bndbox>{_tags(xmin=x0, ymin=y0, xmax=x1, ymax=y1)}</bndbox></object>"
        for label, (x0, y0, x1, y1) in objects
    )
    sides = _tags(width=size[0], height=size[1], depth=3)
    return f"<annotation><filename>{name}.jpg</filename><size>{sides}</size>{boxes}</annotation>".encode()


def _tags(**values: int) -> str:
    return "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items())
