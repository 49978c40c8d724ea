"""A sheet of repaintings by the embedded base: a row per mode and drawing of the demo set.

python scripts/repainted.py --out docs/images/repainted.webp

From the left: the drawing, what is repainted (white), four repaintings.
"""

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from generate import generate
from generate.config import Generate, Repaint
from generate.planning import repainting
from orchard.bases import bases
from orchard.datasets import demo, folders
from orchard.images.images import TEST, TRAIN, ImageSet, square

MASKS = {"background": "grabcut", "object": "grabcut", "centre": "boxes", "outpaint": "boxes"}
REPAINTINGS = 4


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    drawings = _one_per_class(demo.render())
    with tempfile.TemporaryDirectory() as name:
        photos, sets = Path(name) / "photos", Path(name) / "sets"
        folders.write(photos, drawings.of(TRAIN), drawings.of(TEST))
        rows = [row for mode in get_args(Repaint) for row in _rows(mode, photos, sets / mode)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(args.out, quality=90)


def _one_per_class(found: ImageSet) -> ImageSet:
    """The first drawing of each class in either split."""
    return found.keep({(photo.split, photo.label): photo for photo in reversed(found.photos)}.values())


def _rows(mode: Repaint, photos: Path, output: Path) -> list[np.ndarray]:
    """(S, 6 * S, 3) of each class."""
    options = {"data": str(photos), "repaint": mode, "mask": MASKS[mode], "base": "mini"}
    made = generate(**options, count=REPAINTINGS, screens=["none"], output=str(output))
    assert made is not None
    config, side = Generate(**options), bases.resolve("mini").resolution
    return [_row(repainting.load(config, label, side), made, label) for label in made.classes]


def _row(repaints: repainting.Repaints, made: ImageSet, label: str) -> np.ndarray:
    (photo,) = repaints.guides.photos
    canvas = repaints.canvas(photo)
    repainted = canvas.repainted(canvas.passes[0]).astype(np.uint8) * 255
    images = [square(photo.image(), canvas.side), Image.fromarray(repainted).convert("RGB")]
    images += [one.image() for one in made.photos if one.label == label]
    return np.concatenate([np.asarray(image) for image in images], axis=1)


if __name__ == "__main__":
    main()
