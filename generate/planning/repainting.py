"""`--repaint`: which training images of a class are repainted, and what of each."""

import operator
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from accelerate.utils import gather_object
from PIL import Image, ImageFilter, ImageOps

from generate.config import Generate
from generate.masking import masks
from generate.masking.masks import MaskSource, NoMaskError
from generate.planning import init_images
from generate.planning.init_images import InitImages
from orchard import devices
from orchard.bases import bases, compatibility
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.errors import UserError, listed
from orchard.images.boxes import Box
from orchard.images.framing import framed_boxes
from orchard.images.images import Photo, framed_mask, sha256

INSIDE, OUTSIDE = 0.97, 0.95
"""Strengths of inpainting and outpainting in arXiv 2308.12453, whose guidance scale is `GUIDANCE`."""
GUIDANCE = 3.0
MIDDLE = "centre"
"""What rows call the middle square of half the side, which needs no mask of the photo."""
CHANNELS = {"unet": 4, "transformer": 16}
"""Latent channels that the stock inpainting pipelines take, by denoiser."""


@dataclass(frozen=True)
class Pass:
    """One run of the pipeline: what it repaints, and the share of noise that it begins with."""

    inside: bool
    strength: float


MODES: Mapping[str, tuple[Pass, ...]] = {
    "object": (Pass(True, INSIDE),),
    "background": (Pass(False, OUTSIDE),),
    "centre": (Pass(True, INSIDE),),
    "outpaint": (Pass(True, INSIDE), Pass(False, OUTSIDE)),
}
MASKED = ("object", "background")
"""Modes that need to know where the object is."""


def least_strength(mode: str) -> float:
    """The usual strength of the pass that has fewest steps."""
    return min(one.strength for one in MODES[mode])


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What is repainted of one photo, at the sampled size."""

    kind: str
    packed: bytes
    side: int
    boxes: tuple[Box, ...]
    """The photo's boxes, moved with it; none where the object does not stay in them."""
    passes: tuple[Pass, ...]
    feather: int

    def repainted(self, one: Pass) -> np.ndarray:
        """(S, S) bool: what a pass repaints."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        inside = np.unpackbits(bits, count=self.side**2).reshape(self.side, self.side).astype(bool)
        return inside if one.inside else ~inside

    @property
    def share(self) -> float:
        """Of the image's pixels, those that some pass repaints."""
        return float(np.mean(np.any([self.repainted(one) for one in self.passes], axis=0)))

    @property
    def keeps(self) -> bool:
        """Whether pixels of the photo are left; a second pass repaints what the first one kept."""
        return len(self.passes) == 1


@dataclass(frozen=True, kw_only=True)
class Repaints:
    """The training images of a class that can be repainted."""

    guides: InitImages
    canvases: Mapping[str, Canvas]
    """By SHA-256 of the photo."""
    left_out: Mapping[str, tuple[str, ...]]
    """Reason -> the photos that are left out for it."""

    def canvas(self, photo: Photo) -> Canvas:
        """What is repainted of one of `guides`."""
        return self.canvases[photo.sha256]

    def arguments(self, config: Generate) -> dict[str, object]:
        """What decides the pixels; what is not in use is left out."""
        canvases = list(self.canvases.values())
        packed = b"".join(digest.encode() + one.packed for digest, one in sorted(self.canvases.items()))
        found = {
            "repaint": config.repaint,
            "mask": canvases[0].kind,
            "masks": sha256(packed),
            "strength": list(self.strengths),
        }
        used = ("mask_dilate", "mask_feather", "mask_invert")
        return found | {name: getattr(config, name) for name in used if getattr(config, name)}

    @property
    def strengths(self) -> tuple[float, ...]:
        """Of each pass, where the rows have none of their own."""
        first, *_ = self.canvases.values()
        return tuple(one.strength for one in first.passes)

    def said(self) -> str:
        """``73 photos; left out: no box 2 (a.jpg, b.jpg)``."""
        number = len(self.guides.photos)
        return f"{number} photo{'s' * (number != 1)}" + (
            f"; left out: {_reasons(self.left_out)}" if self.left_out else ""
        )


def _reasons(left_out: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{reason} {len(paths)} ({listed(paths)})" for reason, paths in left_out.items())


def require_base(base: Base, option: Literal["repaint", "image_guidance", ""]) -> None:
    """Raise `UserError` where the stock pipelines cannot do with this base what ``option`` asks of it."""
    if option and not FAMILIES[base.family].inpainting:
        raise UserError(
            f"--{option}: diffusers starts no {FAMILIES[base.family].pipeline} from an image, which --base "
            f"{base.name} is; leave it out, or give another base"
        )
    repaint = option == "repaint"
    channels = bases.latent_shape(base, (base.resolution, base.resolution))[0]
    if base.inpaints and not repaint:
        takes = compatibility.inpainting_channels(channels)
        raise UserError(
            f"--base {base.name}: its denoiser takes {takes} channels, so it inpaints alone; give --repaint "
            "MODE, or a text-to-image model"
        )
    usual = CHANNELS[FAMILIES[base.family].denoiser]
    if repaint and channels != usual:
        raise UserError(
            f"--repaint: diffusers repaints latents of {usual} channels, those of --base {base.name} have "
            f"{channels}; give another base"
        )


def load(config: Generate, label: str, side: int) -> Repaints:
    """What of each training image of a class is repainted; test images are never among them.

    Raises:
        UserError: no image of the class can be repainted, or a mask that cannot be used.
    """
    photos = init_images.load(config.data, label, config.seed, option="--data").photos
    everything = init_images.training_images(config.data, "--data")
    source = masks.source(config.mask, everything) if config.repaint in MASKED else None
    canvases, left_out = {}, defaultdict(list)
    for photo, found in zip(photos, _canvases(config, photos, side, source), strict=True):
        if isinstance(found, Canvas):
            canvases[photo.sha256] = found
        else:
            left_out[str(found)].append(photo.path)
    reasons = {reason: tuple(paths) for reason, paths in left_out.items()}
    if not canvases:
        raise UserError(
            f"--repaint {config.repaint}: no training image of class {label} can be repainted: "
            f"{_reasons(reasons)}; add masks or boxes, or give another --mask"
        )
    kept = tuple(photo for photo in photos if photo.sha256 in canvases)
    return Repaints(guides=InitImages(label, config.seed, kept), canvases=canvases, left_out=reasons)


def _canvases(
    config: Generate, photos: Sequence[Photo], side: int, source: MaskSource | None
) -> list[Canvas | NoMaskError]:
    """What of each photo is repainted, or why nothing is; the processes share the work.

    Raises:
        UserError: a mask that cannot be used.
    """
    state = devices.processes()

    def mine() -> Iterator[tuple[int, Canvas | NoMaskError | UserError]]:
        for place in range(len(photos))[state.process_index :: state.num_processes]:
            try:
                yield place, _canvas(config, photos[place], side, source)
            except NoMaskError as reason:
                yield place, reason
            except UserError as error:
                # Raised by all processes together, since the others wait for this one.
                yield place, error
                return

    found = dict(sorted(gather_object(list(mine())), key=operator.itemgetter(0)))
    if errors := [one for one in found.values() if isinstance(one, UserError)]:
        raise errors[0]
    return list(found.values())


def _canvas(config: Generate, photo: Photo, side: int, source: MaskSource | None) -> Canvas:
    boxes: tuple[Box, ...] = ()
    if source is None:
        mask = Image.new("L", (side, side))
        mask.paste(255, (side // 4, side // 4, side // 4 + side // 2, side // 4 + side // 2))
    else:
        image = photo.image()
        found = source(photo, image)
        _require_part(found)
        mask = framed_mask(found, (side, side))
        boxes = framed_boxes(photo.boxes(), (image.height, image.width), (side, side)) or _around(mask)
    if config.mask_invert:
        mask = ImageOps.invert(mask)
    for _ in range(abs(config.mask_dilate)):
        mask = mask.filter((ImageFilter.MaxFilter if config.mask_dilate > 0 else ImageFilter.MinFilter)(3))
    _require_part(mask)
    assert config.repaint is not None
    return Canvas(
        kind=source.kind if source else MIDDLE,
        packed=zlib.compress(np.packbits(np.asarray(mask) > 0).tobytes()),
        side=side,
        boxes=boxes,
        passes=MODES[config.repaint],
        feather=config.mask_feather,
    )


def _require_part(mask: Image.Image) -> None:
    low, high = mask.getextrema()
    if low == high:
        raise NoMaskError("its mask covers everything" if low else "its mask is empty")


def _around(mask: Image.Image) -> tuple[Box, ...]:
    """The box around what is in a mask, where the photo has none of its own."""
    box = mask.getbbox()
    return (Box(*map(float, box)),) if box else ()
