"""The training photos as one uint8 array."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps
from rich.progress import track

SIZE = 64
DTYPE = np.uint8


@dataclass(frozen=True, kw_only=True)
class Photos:
    """``pixels`` (N, 64, 64, 3) uint8, ``labels`` (N,) positions in the class ``names``."""

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def load(folder: Path, cache: Path) -> Photos:
    """Decode every photo once and keep the pixels in ``cache`` for the stages after."""
    shards = sorted(folder.glob("*.parquet"))
    if not shards:
        raise FileNotFoundError(f"no Parquet files in {folder}")
    names = tuple(_names(shards[0]))
    files = {key: cache / f"{key}.npy" for key in ("pixels", "labels")}
    if not all(path.exists() for path in files.values()):
        _decode(shards, files)
    return Photos(names=names, **{key: np.load(path) for key, path in files.items()})


def _names(shard: Path) -> list[str]:
    metadata = pq.read_schema(shard).metadata[b"huggingface"]
    return json.loads(metadata)["info"]["features"]["label"]["names"]


def _decode(shards: list[Path], files: dict[str, Path]) -> None:
    pixels, labels = [], []
    for shard in track(shards, description="decoding"):
        table = pq.read_table(shard)
        columns = (table[name].to_pylist() for name in ("image", "label", "photo_box"))
        for image, label, box in zip(*columns, strict=True):
            pixels.append(_pixels(image["bytes"], box))
            labels.append(label)
    array = np.stack(pixels)
    np.save(files["labels"], np.array(labels, dtype=np.int64))
    np.save(files["pixels"], array)


def _pixels(data: bytes, box: list[int]) -> np.ndarray:
    photo = Image.open(io.BytesIO(data)).convert("RGB").crop(box)
    return np.asarray(ImageOps.fit(photo, (SIZE, SIZE), Image.Resampling.LANCZOS), dtype=DTYPE)


def class_weights(photos: Photos, focus: tuple[str, ...], share: float) -> np.ndarray:
    """(N,) sampling weights, summing to 1, that give the ``focus`` classes ``share`` of the draws."""
    unknown = set(focus) - set(photos.names)
    if unknown:
        raise ValueError(f"--focus {sorted(unknown)} not among {photos.names}")
    focused = np.isin(photos.labels, [photos.names.index(name) for name in focus])
    weights = np.where(focused, share / max(focused.sum(), 1), (1 - share) / (~focused).sum())
    return weights / weights.sum()
