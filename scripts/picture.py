"""A sheet of synthetic images: one row a class, the columns of each set side by side.

python scripts/picture.py --sets outputs/untuned outputs/tuned --out docs/images/samples.webp
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from orchard import shards
from orchard.images import images


def main() -> None:
    """Read the sets and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="folders that generate wrote")
    parser.add_argument("--columns", type=int, default=8, help="images a class and set")
    parser.add_argument("--gap", type=int, default=12, help="white pixels between sets")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    blocks = [_block(shards.read(folder), args.columns) for folder in args.sets]
    gap = np.full((blocks[0].shape[0], args.gap, 3), 255, np.uint8)
    parts = [part for block in blocks for part in (block, gap)][:-1]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(parts, axis=1)).save(args.out, optimize=True)


def _block(found: images.ImageSet, columns: int) -> np.ndarray:
    """(classes * S, columns * S, 3): the first rows of each class, none picked by hand."""
    rows = []
    for name in found.classes:
        photos = [photo for photo in found.photos if photo.label == name][:columns]
        rows.append(np.concatenate(list(images.pixels(photos, 64)), axis=1))
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
