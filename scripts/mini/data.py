"""The training photos as one uint8 array, and as tensors."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from mini.traits import Traits, measure, on_colour, some_colour
from orchard.cli import cli
from orchard.errors import UserError
from orchard.files import atomic
from orchard.images import thumbnails
from orchard.images.framing import FITS
from orchard.images.images import Photo, decode, square
from orchard.images.traits import COLOURS, name_colours, shows_bars

SIZE = 64
FILES = "*.parquet"
FRAMING = "whole photos; on white also on a colour, others also by their middle square"
PLAIN_COLOUR_WEIGHT = 3.0
"""How much oftener a photo on a plain colour is drawn: one photo in fifty is."""


@dataclass(frozen=True, kw_only=True)
class Photos:
    """The pictures that are learned from: some photos give two.

    ``pixels`` (N, 64, 64, 3) uint8, ``labels`` (N,) positions in ``names``, ``photo`` (N,) numbers of the
    photos, ``traits`` N of them, ``weight`` (N,) how often each is drawn among those of its class.
    """

    pixels: np.ndarray
    labels: np.ndarray
    photo: np.ndarray
    weight: np.ndarray
    traits: list[Traits]
    names: tuple[str, ...]

    def only(self, kept: np.ndarray) -> "Photos":
        """The pictures for which (N,) bool ``kept`` holds."""
        chosen = {name: getattr(self, name)[kept] for name in ARRAYS}
        return replace(self, traits=list(compress(self.traits, kept)), **chosen)


ARRAYS = ("pixels", "labels", "photo", "weight")


def load(folder: Path, cache: Path) -> Photos:
    """Decode every photo once and keep the pictures in ``cache`` for the stages after."""
    names = class_names(folder)
    arrays, described = cache / "pictures.npz", cache / "traits.json"
    if not (arrays.exists() and described.exists()):
        _decode(sorted(folder.glob(FILES)), names, arrays, described)
    traits = [
        Traits(**{**one, "colours": tuple(one["colours"])}) for one in json.loads(described.read_text())
    ]
    with np.load(arrays) as kept:
        return Photos(names=names, traits=traits, **{name: kept[name] for name in ARRAYS})


def class_names(folder: Path) -> tuple[str, ...]:
    """The names that labels stand for, in every file.

    Raises:
        UserError: no Parquet file of a `datasets` data set with class labels there, or of several lists.
    """
    shards = sorted(folder.glob(FILES))
    cli.check(bool(shards), f"--data {folder}: no Parquet files there")
    lists = {_class_names(shard): shard for shard in shards}
    cli.check(
        len(lists) == 1,
        f"--data {folder}: {' and '.join(path.name for path in lists.values())} number their classes "
        "differently; write them anew with one list",
    )
    return next(iter(lists))


def _class_names(shard: Path) -> tuple[str, ...]:
    try:
        metadata = pq.read_schema(shard).metadata[b"huggingface"]
        return tuple(json.loads(metadata)["info"]["features"]["label"]["names"])
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"--data {shard}: no class labels there ({error!r}); give a data set that `datasets` wrote"
        ) from None


def _decode(shards: list[Path], names: tuple[str, ...], arrays: Path, described: Path) -> None:
    rows: dict[str, list] = {name: [] for name in ARRAYS}
    traits: list[dict] = []
    for number, (photo, label) in enumerate(track(list(_rows(shards)), description="decoding")):
        for pixels, one, weight in pictures(photo, names[label], np.random.default_rng([5, number])):
            for name, value in zip(ARRAYS, (pixels, label, number, weight), strict=True):
                rows[name].append(value)
            traits.append(asdict(one))
    with atomic.whole_file(arrays) as aside, aside.open("wb") as file:
        np.savez(file, **{name: np.array(values) for name, values in rows.items()})
    atomic.write_json(described, traits)


def _rows(shards: list[Path]) -> Iterator[tuple[Image.Image, int]]:
    for shard in shards:
        table = pq.read_table(shard)
        columns = (table[name].to_pylist() for name in ("image", "label", "photo_box"))
        for image, label, box in zip(*columns, strict=True):
            yield decode(image["bytes"], shard.name).crop(box), label


def pictures(
    photo: Image.Image, label: str, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, Traits, float]]:
    """A photo -> (64, 64, 3) uint8 pictures of it, what can be told of each, and how often each is drawn.

    Photos on white are taken whole: white joins white without a seam, and half of them are 1.7 times as long
    as wide, so that a middle square cuts the ends off bananas. A second picture has the same on a ground of
    some colour, since hardly any photo shows such a one. All others come whole, between white bars, and by
    their middle square.
    """
    traits = measure(np.asarray(photo), label)
    whole = np.asarray(square(photo, SIZE, "pad"))
    if traits.plain and traits.ground == "white":
        colour = some_colour(rng)
        name = COLOURS[int(name_colours(colour[None, None])[0, 0])]
        yield whole, traits, 1.0
        yield on_colour(whole, colour), replace(traits, ground=name), 0.3
        return
    weight = PLAIN_COLOUR_WEIGHT if traits.plain else 1.0
    if not shows_bars(traits, photo.size):
        yield np.asarray(square(photo, SIZE, "crop")), traits, weight
        return
    yield whole, replace(traits, letterboxed=True), weight / 2
    yield np.asarray(square(photo, SIZE, "crop")), traits, weight / 2


def apart(photos: Photos, others: Sequence[Photo]) -> Photos:
    """Without the photos that copy one of ``others``, mirrored or not (`thumbnails.Originals`)."""
    queries = [_small(photos.pixels)] * len(FITS)
    copies = thumbnails.Originals(thumbnails.of_photos(others)).nearness(queries) < 1
    return photos.only(~np.isin(photos.photo, photos.photo[copies]))


def unambiguous(photos: Photos) -> Photos:
    """Without the photos that stand under two labels: thumbnails that are equal but for their compression."""
    small = _small(photos.pixels)[:, ::4, ::4].astype(np.int16)
    seen: dict[bytes, set[int]] = {}
    keys = [bytes((picture // 16).astype(np.uint8)) for picture in small]
    for key, label in zip(keys, photos.labels, strict=True):
        seen.setdefault(key, set()).add(int(label))
    double = np.array([len(seen[key]) > 1 for key in keys])
    return photos.only(~np.isin(photos.photo, photos.photo[double]))


def _small(pixels: np.ndarray) -> np.ndarray:
    shape, kernel = (thumbnails.SIDE, thumbnails.SIDE), Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(one).resize(shape, kernel)) for one in pixels])


def class_weights(photos: Photos, focus: tuple[str, ...], share: float) -> np.ndarray:
    """(N,) sampling weights, summing to 1, that give the ``focus`` classes ``share`` of the draws."""
    focused = np.isin(photos.labels, [photos.names.index(name) for name in focus])
    inside, outside = photos.weight * focused, photos.weight * ~focused
    weights = share * inside / max(inside.sum(), 1) + (1 - share) * outside / max(outside.sum(), 1)
    return weights / weights.sum()


def mirror(pixels: np.ndarray, chosen: np.ndarray) -> None:
    """Mirror, in place, those of (N, H, W, 3) pictures that (N,) bool ``chosen`` says."""
    pixels[chosen] = pixels[chosen, :, ::-1]


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float in [-1, 1], channels last."""
    images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float()
    return images.div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def to_pixels(images: Tensor) -> np.ndarray:
    """What `to_tensor` took, rounded and clipped."""
    return images.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
