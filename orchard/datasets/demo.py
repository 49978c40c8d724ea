"""A rendered image set for trying the flow without a network. Its numbers say nothing about photos."""

import io
from functools import partial

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from orchard.images.boxes import Annotated, Box
from orchard.images.images import TEST, TRAIN, ImageSet, Photo, sha256

NOTICE = "rendered demo set: its numbers say nothing about photos"
CLASSES = ("apple", "banana", "orange")
COUNTS = {TRAIN: 40, TEST: 16}
CANVAS = 192
SIDE = 96


def render() -> ImageSet:
    """40 training and 16 test drawings per class with their boxes, the same on every machine."""
    photos = []
    for split, count in COUNTS.items():
        for number, label in enumerate(CLASSES):
            for index in range(count):
                rng = np.random.default_rng([number, index, split == TEST])
                image = _draw(label, rng)
                data = _bmp(image)
                photos.append(
                    Photo(
                        path=f"{split}/{label}_{index:03d}.bmp",
                        label=label,
                        split=split,
                        sha256=sha256(data),
                        read=partial(bytes, data),
                        annotations=(partial(_annotated, image),),
                    )
                )
    return ImageSet(name="demo", classes=CLASSES, photos=tuple(photos), notes=(NOTICE,))


def _bmp(image: Image.Image) -> bytes:
    # Uncompressed, so that the hashes do not depend on the zlib that Pillow was built with.
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return buffer.getvalue()


def _annotated(image: Image.Image) -> Annotated:
    """The box around what is drawn; the corners are background."""
    background = Image.new("RGB", image.size, image.getpixel((0, 0)))
    box = ImageChops.difference(image, background).getbbox()
    assert box is not None
    return Annotated(boxes=(Box(*map(float, box)),), size=image.size)


def _draw(label: str, rng: np.random.Generator) -> Image.Image:
    background = (255, 255, 255) if rng.random() < 0.5 else _colour(rng, (150, 140, 120), 60)
    layer = Image.new("RGB", (CANVAS, CANVAS), background)
    pen = ImageDraw.Draw(layer)
    painters = {"apple": _apple, "banana": _banana, "orange": _orange}
    painters[label](pen, rng)
    layer = layer.rotate(rng.uniform(-50, 50), Image.Resampling.BICUBIC, fillcolor=background)
    return layer.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _colour(rng: np.random.Generator, centre: tuple[int, int, int], spread: int) -> tuple[int, ...]:
    return tuple(int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in centre)


def _box(rng: np.random.Generator, ratio: float) -> tuple[float, float, float, float]:
    radius = rng.uniform(42, 66)
    x, y = rng.uniform(80, 112, size=2)
    return x - radius, y - radius * ratio, x + radius, y + radius * ratio


def _apple(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    box = _box(rng, 0.95)
    middle = (box[0] + box[2]) / 2
    fill = _colour(rng, (190, 35, 40) if rng.random() < 0.7 else (120, 170, 60), 25)
    pen.ellipse(box, fill=fill)
    pen.line((middle, box[1] + 8, middle + 6, box[1] - 18), fill=(90, 60, 30), width=5)
    pen.ellipse((middle + 6, box[1] - 18, middle + 34, box[1] - 4), fill=(60, 130, 50))


def _orange(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    box = _box(rng, 1.0)
    pen.ellipse(box, fill=_colour(rng, (240, 140, 25), 20))
    for _ in range(60):
        x, y = rng.uniform(box[0] + 20, box[2] - 20), rng.uniform(box[1] + 20, box[3] - 20)
        pen.point((x, y), fill=(210, 110, 10))


def _banana(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    box = _box(rng, 0.9)
    pen.arc(box, 20, 165, fill=_colour(rng, (235, 205, 55), 20), width=int(rng.integers(22, 34)))
