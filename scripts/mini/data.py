"""The training photos as one uint8 array, and as tensors."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from orchard import cli, run, thumbnails
from orchard.errors import UserError
from orchard.framing import FITS
from orchard.images import Photo, square

SIZE = 64
FILES = "*.parquet"
WHITE, WHITE_SHARE = 225, 0.65
FRAMING = "photos on white whole, scenes whole or by their middle square"


@dataclass(frozen=True, kw_only=True)
class Photos:
    """``pixels`` (N, 64, 64, 3) uint8, ``labels`` (N,) positions in ``names``, ``white`` (N,) backgrounds."""

    pixels: np.ndarray
    labels: np.ndarray
    white: np.ndarray
    names: tuple[str, ...]


def load(folder: Path, cache: Path) -> Photos:
    """Decode every photo once and keep the pixels in ``cache`` for the stages after."""
    names = class_names(folder)
    files = {key: cache / f"{key}.npy" for key in ("pixels", "labels", "white")}
    if not all(path.exists() for path in files.values()):
        _decode(sorted(folder.glob(FILES)), files)
    return Photos(names=names, **{key: np.load(path) for key, path in files.items()})


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


def _decode(shards: list[Path], files: dict[str, Path]) -> None:
    rows: dict[str, list] = {key: [] for key in files}
    for shard in track(shards, description="decoding"):
        table = pq.read_table(shard)
        columns = (table[name].to_pylist() for name in ("image", "label", "photo_box"))
        for image, label, box in zip(*columns, strict=True):
            photo = Image.open(io.BytesIO(image["bytes"])).convert("RGB").crop(box)
            white = white_background(np.asarray(photo))
            rows["pixels"].append(_framed(photo, whole=white or len(rows["pixels"]) % 2 == 0))
            rows["labels"].append(label)
            rows["white"].append(white)
    for key, path in files.items():
        with run.whole_file(path) as aside, aside.open("wb") as file:
            np.save(file, np.array(rows[key]))


def _framed(photo: Image.Image, whole: bool) -> np.ndarray:
    """(64, 64, 3) uint8: the photo on white if ``whole``, else its middle square.

    Photos on white are taken whole: white joins white without a seam, and half of them are 1.7 times as long
    as wide, so that a middle square cuts the ends off bananas. Scenes come in both ways.
    """
    return np.asarray(square(photo, SIZE, "pad" if whole else "crop"))


def white_background(pixels: np.ndarray) -> bool:
    """(H, W, 3) uint8 -> most of the border is near white."""
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    return bool((border.min(axis=-1) >= WHITE).mean() >= WHITE_SHARE)


def apart(photos: Photos, others: Sequence[Photo]) -> Photos:
    """The photos that copy none of ``others``, mirror images included (`thumbnails.Originals`)."""
    shape, kernel = (thumbnails.SIDE, thumbnails.SIDE), Image.Resampling.LANCZOS
    small = [np.asarray(Image.fromarray(one).resize(shape, kernel)) for one in photos.pixels]
    queries = [np.stack(small)] * len(FITS)
    kept = thumbnails.Originals(thumbnails.of_photos(others)).nearness(queries) >= 1
    arrays = {name: getattr(photos, name)[kept] for name in ("pixels", "labels", "white")}
    return replace(photos, **arrays)


def class_weights(photos: Photos, focus: tuple[str, ...], share: float) -> np.ndarray:
    """(N,) sampling weights, summing to 1, that give the ``focus`` classes ``share`` of the draws."""
    focused = np.isin(photos.labels, [photos.names.index(name) for name in focus])
    weights = np.where(focused, share / max(focused.sum(), 1), (1 - share) / (~focused).sum())
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
    return images.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
