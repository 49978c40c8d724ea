"""Where the object of a photo is: in its boxes, refined by GrabCut, in a mask image, or by a segmenter."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from orchard.datasets.folders import SUFFIXES, file_bytes
from orchard.errors import UserError
from orchard.images.images import Photo, decode

BOXES, GRABCUT = "boxes", "grabcut"
GRABCUT_SIDE, GRABCUT_ROUNDS = 256, 5
"""Pixels of a photo's longer side as GrabCut sees it, in part of a second; its iterations."""
WHITE = 128
"""Grey level from which on a pixel of a mask image is the object."""
CONFIG = "config.json"


class NoMaskError(Exception):
    """Why a photo has no mask; it is left out."""


class MaskSource(Protocol):
    """Finds the object of a photo."""

    kind: str
    """What rows call it."""

    def __call__(self, photo: Photo, image: Image.Image) -> Image.Image:
        """Mode L, of the size of ``image``, which is the photo's: 255 where the object is, else 0.

        Raises:
            NoMaskError: the photo has none.
            UserError: it has one that cannot be used.
        """


def source(name: str, photos: Sequence[Photo]) -> MaskSource:
    """What ``--mask name`` stands for; ``photos`` are all that it may be asked for.

    Raises:
        UserError: no such folder or segmenter.
    """
    if name in (BOXES, GRABCUT):
        return Boxes() if name == BOXES else GrabCut()
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / CONFIG).is_file():
        return MaskImages(folder, photos)
    from generate.masking import segmenters

    return segmenters.load(name)


class Boxes:
    """The insides of the photo's boxes."""

    kind = BOXES

    def __call__(self, photo: Photo, image: Image.Image) -> Image.Image:
        """As `MaskSource`."""
        mask = Image.new("L", image.size)
        draw = ImageDraw.Draw(mask)
        for box in boxes_of(photo):
            left, top, right, bottom = map(round, box)
            draw.rectangle((left, top, right - 1, bottom - 1), fill=255)
        return mask


def boxes_of(photo: Photo) -> Sequence[tuple[float, float, float, float]]:
    """The photo's boxes, of which there is one at least; else `NoMaskError`."""
    found = photo.boxes()
    if not found:
        raise NoMaskError("no box")
    return found


class GrabCut:
    """What GrabCut takes for the object within the boxes: all outside them is background.

    Rother et al. 2004.
    """

    kind = GRABCUT

    def __call__(self, photo: Photo, image: Image.Image) -> Image.Image:
        """As `MaskSource`."""
        import cv2

        within = Boxes()(photo, image)
        small = image.copy()
        small.thumbnail((GRABCUT_SIDE, GRABCUT_SIDE))
        inside = np.asarray(within.resize(small.size, Image.Resampling.NEAREST)) > 0
        if inside.all() or not inside.any():
            raise NoMaskError("its boxes leave GrabCut no background" if inside.all() else "no box")
        labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        cv2.setRNGSeed(0)
        pixels = np.asarray(small)[:, :, ::-1].copy()
        models = (np.zeros((1, 65)), np.zeros((1, 65)))
        cv2.grabCut(pixels, labels, (0, 0, 1, 1), *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
        found = Image.fromarray(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8) * 255)
        return found.resize(image.size, Image.Resampling.BILINEAR).point(binary)


class MaskImages:
    """Images in a folder with the name of the photo, whatever their suffix, white where the object is.

    For the photo ``train/apple/a.jpg`` that is ``train/apple/a.png``, ``apple/a.png`` or ``a.png`` in it, the
    shorter ones where no other photo ends so.
    """

    kind = "images"

    def __init__(self, folder: Path, photos: Iterable[Photo]) -> None:
        self.folder = folder
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(
                f"--mask {folder}: neither mask images in it nor the {CONFIG} of a segmenter; give boxes, "
                "grabcut, a folder of mask images, or a segmenter"
            )
        self.files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
        self.owners = Counter(end for photo in photos for end in _ends(photo))

    def __call__(self, photo: Photo, image: Image.Image) -> Image.Image:
        """As `MaskSource`."""
        path = next((self.files[end] for end in _ends(photo) if self._is_of_one(end)), None)
        if path is None:
            raise NoMaskError("no mask image")
        mask = decode(file_bytes(path), str(path)).convert("L").point(binary)
        if mask.size != image.size:
            raise UserError(
                f"--mask {path}: is {mask.width} x {mask.height} pixels, {photo.path} is {image.width} x "
                f"{image.height}; make them equal"
            )
        require_some(mask, f"--mask {path}")
        return mask

    def _is_of_one(self, end: str) -> bool:
        return end in self.files and self.owners[end] == 1


def _ends(photo: Photo) -> list[str]:
    """``train/apple/a.jpg`` -> ``train/apple/a``, ``apple/a``, ``a``."""
    parts = PurePosixPath(photo.path).with_suffix("").parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def require_some(mask: Image.Image, what: str) -> None:
    """Raise `UserError` where a mask has nothing or everything in it."""
    low, high = mask.getextrema()
    if low == high:
        fault = "covers everything" if low else "is empty"
        raise UserError(f"{what}: the mask {fault}; draw the object white on black, or remove it")


def binary(level: int) -> int:
    """A grey level -> that of a mask."""
    return 255 if level >= WHITE else 0
