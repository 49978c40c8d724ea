"""Masks for a base that inpaints: a few of each photo, drawn from its contents and encoded once with it."""

from collections.abc import Iterable, Sequence

import numpy as np

from orchard.images.boxes import Box
from orchard.images.images import ImageSet, Photo
from orchard.images.splits import stable_hash

KINDS = ("everything", "the boxes", "all but the boxes", "a rectangle or ellipse")
"""What the masks of a photo hide, each trained on equally often; the last one where no box is known.

They are what ``generate --repaint`` asks for; and a quarter hides everything, as where Stable Diffusion
learned to inpaint.
"""
MARGIN = 8
"""Boxes are covered with a margin of up to a side of the image divided by this."""


def of_photo(photo: Photo, boxes: Sequence[Box], size: tuple[int, int], cell: int) -> np.ndarray:
    """(2, K, h, w) bool: K masks of a photo of (height, width) ``size``, and K of its mirror image.

    Each latent cell, ``cell`` pixels wide, is masked or not, as ``generate --repaint`` has it. ``boxes`` are
    in pixels.
    """
    cells = (size[0] // cell, size[1] // cell)
    scaled = [Box(*(edge / cell for edge in box)) for box in boxes]
    plain, mirrored = (_draw(scaled, cells, np.random.default_rng(_seed(photo, side))) for side in range(2))
    return np.stack([plain, mirrored[..., ::-1]])


def _seed(photo: Photo, side: int) -> int:
    return stable_hash("masks", photo.sha256, side)


def _draw(boxes: Sequence[Box], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(K, h, w) bool, a mask of each of `KINDS`."""
    inside = _around(boxes, cells, rng)
    told = [inside, ~inside] if boxes and not inside.all() else [_shape(cells, rng), _shape(cells, rng)]
    return np.stack([np.ones(cells, bool), *told, _shape(cells, rng)])


def _around(boxes: Iterable[Box], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(h, w) bool: every cell that a box reaches into, and a margin."""
    inside = np.zeros(cells, bool)
    margin = int(rng.integers(max(cells) // MARGIN + 1))
    for left, top, right, bottom in boxes:
        rows = slice(max(int(top) - margin, 0), int(np.ceil(bottom)) + margin)
        inside[rows, max(int(left) - margin, 0) : int(np.ceil(right)) + margin] = True
    return inside


def _shape(cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(h, w) bool: a rectangle or ellipse of any size at any place, as in diffusers' inpainting scripts."""
    axes = []
    for side in cells:
        length = int(rng.integers(side)) + 1
        start = int(rng.integers(side - length + 1))
        # -1 and 1 are the edges.
        axes.append((np.arange(side) + 0.5 - start) * 2 / length - 1)
    down, across = np.abs(axes[0])[:, None], np.abs(axes[1])[None]
    return (down < 1) & (across < 1) if rng.integers(2) else down**2 + across**2 < 1


def said(photos: ImageSet) -> str:
    """The masks of a set of photos in words."""
    boxed = sum(bool(photo.boxes()) for photo in photos.photos)
    kinds = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
    return f"hide {kinds} of a photo, each as often; {boxed} of {len(photos)} photos have boxes"
