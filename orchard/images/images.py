"""Photos, sets of them, and the one way from a file's bytes to pixels.

Every stage gets its pixels from `decode`, so all of them see the same ones.
"""

import functools
import hashlib
import io
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from orchard.errors import UserError
from orchard.images import boxes
from orchard.images.boxes import Annotated, Box, Geometry
from orchard.images.framing import Fit, window

TRAIN, TEST = "train", "test"
BACKGROUND = (255, 255, 255)
DECODING = 2
"""Goes up when `decode` comes to give other pixels: part of the key of all that is kept of them."""
LARGE = 2**24
"""Pixels: photos of more are decoded one at a time, since the largest take gigabytes each."""
_one_large = Lock()
WORKERS = min(32, (os.cpu_count() or 1) + 4)
"""Threads that decode; some of them wait for the disk."""
AHEAD = 4 * WORKERS
"""Decoded images that wait for whoever takes them."""
# What `Image.open` may try: its other readers include one that hands the file to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
# Pillow stops at 1 MB, which an embedded workflow or a printer's colour profile may exceed.
PngImagePlugin.MAX_TEXT_CHUNK = 64 * 2**20
PHOTOMETRIC, BITS, ORIENTATION = 262, 258, 274
"""Tags of TIFF: whether 0 is white (0) or black (1), bits a sample, and, as in EXIF, how it is turned."""
# Greys that an editor has left their RGB profile are common, and mean what they say.
GREY_SPACES, RGB_SPACES = {"GRAY": "L", "RGB": "RGB"}, {"RGB": "RGB"}
SPACES = dict.fromkeys(("1", "L", "LA"), GREY_SPACES) | {"CMYK": {"CMYK": "CMYK"}, "LAB": {"Lab": "LAB"}}
"""Mode of an image -> colour spaces that its ICC profile may be for -> the mode to convert from; else RGB."""
Annotation = Callable[[], Annotated]
"""Reads what a file says of where the objects of a photo are."""
_log = logging.getLogger(__name__)
_said: set[tuple[str, str]] = set()


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One labelled image: its name in the set, the hash of its file, and how to read the file."""

    path: str
    label: str
    split: str
    sha256: str
    read: Callable[[], bytes]
    text: str | None = None
    annotations: tuple[Annotation, ...] = ()
    """Files with its boxes that there may be, the nearest first."""

    def image(self) -> Image.Image:
        """The picture, as `decode` gives it."""
        return decode(self.read(), self.path)

    def boxes(self) -> tuple[Box, ...]:
        """Boxes around its objects, in pixels of `image`; none where no annotation has any.

        Raises:
            UserError: an annotation that cannot be read, or is for a photo of another size.
        """
        return self._boxes

    @functools.cached_property
    def _boxes(self) -> tuple[Box, ...]:
        found = (annotation() for annotation in self.annotations)
        annotated = next((one for one in found if one.boxes), None)
        return boxes.placed(annotated, geometry(self.read(), self.path), self.path) if annotated else ()


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Photos and the sorted class list they were labelled from."""

    name: str
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    notes: tuple[str, ...] = ()
    drawn: bool = False
    """Whether the test split was drawn from the files' hashes, not the set's own."""
    seen: frozenset[str] = frozenset()
    """SHA-256 of the real images that the generator of synthetic ones, or a screen of them, has seen."""
    leaked: tuple[str, ...] = ()
    """Training images that were left out, being in the test split too, byte for byte."""

    def __len__(self) -> int:
        return len(self.photos)

    def of(self, split: str) -> "ImageSet":
        """The photos of one split; the class list stays whole."""
        return self.keep(photo for photo in self.photos if photo.split == split)

    def keep(self, photos: Iterable[Photo]) -> "ImageSet":
        """The same set with these photos alone."""
        return replace(self, photos=tuple(photos))

    def counts(self) -> dict[str, int]:
        """Photos per class, zeros included."""
        found = Counter(photo.label for photo in self.photos)
        return {name: found[name] for name in self.classes}

    def by_class(self) -> dict[str, list[Photo]]:
        """The photos of each class, in order; empty lists included."""
        found: dict[str, list[Photo]] = {name: [] for name in self.classes}
        for photo in self.photos:
            found[photo.label].append(photo)
        return found

    def labels(self) -> np.ndarray:
        """(N,) int64 positions in ``classes``."""
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place[photo.label] for photo in self.photos], dtype=np.int64)

    def hashes(self) -> frozenset[str]:
        """SHA-256 of every file's bytes."""
        return frozenset(photo.sha256 for photo in self.photos)

    def boxes_digest(self) -> str:
        """SHA-256 over the boxes of every photo that has some; empty where none has."""
        lines = sorted(f"{photo.sha256}:{found}" for photo in self.photos if (found := photo.boxes()))
        return sha256("\n".join(lines).encode()) if lines else ""

    def digest(self) -> str:
        """SHA-256 over every label and file, whatever their order."""
        return sha256("\n".join(sorted(f"{p.label}:{p.sha256}" for p in self.photos)).encode())


def sha256(data: bytes) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, name: str) -> Image.Image:
    """File bytes -> upright sRGB image: EXIF orientation and colour profile applied, transparency over white.

    A profile that is broken or does not fit is left aside, with a warning.

    Raises:
        UserError: the bytes are not a whole image.
    """
    with _whole(data, name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        with _one_large if image.width * image.height > LARGE else nullcontext():
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _over_white(_srgb(_eight_bits(image), image.info, name))


def geometry(data: bytes, name: str) -> Geometry:
    """The size and orientation of an image's file, from its head alone.

    Raises:
        UserError: the bytes are not an image.
    """
    with _whole(data, name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        orientation = image.getexif().get(ORIENTATION, 1)
        # Of TIFF alone Pillow gives the size that the image has once it is turned.
        turned = image.format == "TIFF" and orientation in boxes.TURNED
        return Geometry(image.size[::-1] if turned else image.size, orientation)


@contextmanager
def _whole(data: bytes, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decoders raise whatever a damaged file leads them into
        raise UserError(
            f"{name}: not a whole image ({_reason(data, error)}); replace or remove the file"
        ) from error


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    return (str(error) or type(error).__name__).removesuffix(".")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale deeper greys to 8 bits, which Pillow would clip; refuse pixels without a known range."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    tags = getattr(image, "tag_v2", {})
    deepest = 4095 if tags.get(BITS) == (12,) else 65535
    deep = np.asarray(image)
    if image.mode == "F" or deep.min() < 0 or deep.max() > deepest:
        raise ValueError(f"pixels from {deep.min():g} to {deep.max():g}, not 8 or 16 bits; save it so")
    # Rounds exactly, since 65535 is 255 times 257, in half the memory of floats.
    grey = ((deep.astype(np.uint32) * 255 + deepest // 2) // deepest).astype(np.uint8)
    # Pillow inverts such greys of up to 8 bits alone.
    if image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == 0:
        grey = 255 - grey
    grey[deep == image.info.get("transparency")] = BACKGROUND[0]
    return Image.fromarray(grey)


def _srgb(image: Image.Image, info: Mapping[Any, Any], name: str) -> Image.Image:
    """The image in sRGB, still with its transparency; ``info`` is that of the file."""
    if "icc_profile" not in info:
        return image
    profile = info["icc_profile"] or b""
    try:
        return _converted(image, profile)
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        _warn(name, sha256(profile), (str(error) or "damaged").removesuffix("."))
        return image


def _converted(image: Image.Image, data: bytes) -> Image.Image:
    """The image by its ICC profile in sRGB; raise `ValueError` where the two do not fit."""
    if not data:  # Pillow could not put it together
        raise ValueError("parts of it are missing")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = profile.profile.xcolor_space.strip()
    mode = SPACES.get(image.mode, RGB_SPACES).get(space)
    if mode is None:
        raise ValueError(f"it is for {space}, the image is {image.mode}")
    found = ImageCms.profileToProfile(
        image.convert(mode), profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert found is not None
    if image.has_transparency_data:
        found.putalpha(image.convert("RGBA").getchannel("A"))
    return found


def _warn(name: str, profile: str, reason: str) -> None:
    """Say once of each profile, which a whole set may share, why it is left aside."""
    if (profile, reason) not in _said:
        _said.add((profile, reason))
        _log.warning(
            "warning: %s: its colour profile cannot be used (%s); it and others like it are read as sRGB",
            name,
            reason,
        )


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def framed(
    image: Image.Image, size: tuple[int, int], fit: Fit = "pad", keep: Sequence[Box] = ()
) -> Image.Image:
    """The image at (height, width) pixels, Lanczos: all of it on white, or what its centre has of that shape.

    Generators and classifiers see all unless told otherwise, and so the same (docs/log/fruit.md). A crop
    shows the boxes of ``keep`` whole (`orchard.images.framing.window`), on white where it leaves the image.
    """
    height, width = size
    if fit == "pad":
        return ImageOps.pad(image, (width, height), Image.Resampling.LANCZOS, color=BACKGROUND)
    if not keep:
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    shown = window((image.height, image.width), size, keep)
    (inside,) = boxes.clipped([shown], image.size)
    scale = width / (shown.right - shown.left)
    left, right = (round((edge - shown.left) * scale) for edge in (inside.left, inside.right))
    top, bottom = (round((edge - shown.top) * scale) for edge in (inside.top, inside.bottom))
    part = image.resize((max(right - left, 1), max(bottom - top, 1)), Image.Resampling.LANCZOS, inside)
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    canvas.paste(part, (left, top))
    return canvas


def framed_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask (mode L, 0 and 255) at (height, width) pixels, where `framed` puts its photo; 0 around it."""
    height, width = size
    return ImageOps.pad(mask, (width, height), Image.Resampling.NEAREST, color=0)


def square(image: Image.Image, size: int, fit: Fit = "pad") -> Image.Image:
    """The image `framed` at ``size`` x ``size`` pixels."""
    return framed(image, (size, size), fit)


def pixels(photos: Sequence[Photo], size: int, through: int | None = None, fit: Fit = "pad") -> np.ndarray:
    """(N, size, size, 3) uint8 of every photo; ``through`` is a smaller size they all go by first.

    Decodes every file whole, so it is also the check that comes before any expensive work.
    """
    found = np.empty((len(photos), size, size, 3), np.uint8)
    with closing(each(photos, size, through, fit)) as rows:
        for place, row in enumerate(rows):
            found[place] = row
    return found


def each(
    photos: Iterable[Photo], size: int, through: int | None = None, fit: Fit = "pad"
) -> Generator[np.ndarray]:
    """(size, size, 3) uint8 of one photo after the other; threads decode up to `AHEAD` in advance.

    Pillow lets go of the interpreter's lock where it decodes and resizes, which is five sixths of the time of
    a JPEG of 512 pixels: processes were no more than a seventh faster, and photos had to be sent to them.
    """

    def one(photo: Photo) -> np.ndarray:
        return sized(photo.image(), size, through, fit)

    waiting: deque[Future[np.ndarray]] = deque()
    pool = ThreadPoolExecutor(WORKERS)
    try:
        for photo in photos:
            waiting.append(pool.submit(one, photo))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def sized(image: Image.Image, size: int, through: int | None = None, fit: Fit = "pad") -> np.ndarray:
    """(size, size, 3) uint8 of an image that goes by the smaller size ``through`` first."""
    if through is not None and through < size:
        image = square(image, through, fit)
    return np.asarray(square(image, size, fit))


def measure(photos: Sequence[Photo]) -> list[tuple[int, int] | UserError]:
    """(height, width) of every photo, upright, or the error of one that does not decode whole."""

    def one(photo: Photo) -> tuple[int, int] | UserError:
        try:
            width, height = photo.image().size
        except UserError as error:
            return error
        return height, width

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, photos))


def require_labelled(images: ImageSet, least: int, why: str) -> None:
    """Raise `UserError` naming the first class with fewer than ``least`` images."""
    for name, count in images.counts().items():
        if count < least:
            plural = "image" if count == 1 else "images"
            raise UserError(f"class {name} has {count} {plural} in training, needs at least {least} ({why})")
