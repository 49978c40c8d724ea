"""The images of the report page as data URIs: sheets of each class, and mistakes beside what is nearest."""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orchard import shards
from orchard.classifiers.embeddings import Embed
from orchard.images.arrays import Images
from orchard.images.images import ImageSet, Photo, decode

ReadPixels = Callable[[Sequence[Photo]], Images]
"""Photos -> (N, S, S, 3) uint8 pixels."""
AT_ONCE = 256
"""Images of a pool that are compared together: as many as a network takes at once."""
SHEET = 12
"""Images of a kind and class that a sheet shows."""
CLASSES = 20
"""Classes, the first by name, that have a sheet."""
SIDE = 128


def thumbnail(image: Image.Image) -> str:
    """The image as a JPEG data URI, the longer side at most 128 pixels."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def sheets(
    real: ImageSet,
    synthetic: ImageSet,
    rejected: Iterable[Mapping[str, str]],
    reasons: Mapping[str, Mapping[str, int]],
) -> list[dict[str, Any]]:
    """For each of the first `CLASSES` its first images of each kind.

    An entry is ``{"name", "real", "kept", "rejected", "reasons"}``.
    Every image has ``src`` and ``note``: its file, its prompt, or why it was rejected. ``reasons`` says of
    each class how many images were rejected for what.
    """
    away = list(rejected)
    return [
        {
            "name": name,
            "real": [_shown(photo, photo.path) for photo in _some(real, name)],
            "kept": [_shown(photo, photo.text or "") for photo in _some(synthetic, name)],
            "rejected": [image for image in away if image["label"] == name][:SHEET],
            "reasons": dict(reasons.get(name, {})),
        }
        for name in real.classes[:CLASSES]
    ]


def rejected(folder: Path, manifest: shards.Manifest) -> list[dict[str, str]]:
    """The first 12 images of each class that the screens turned down: ``label``, ``note`` (why), ``src``.

    Of the first `CLASSES` alone.
    """
    found: list[dict[str, str]] = []
    for row in shards.rejected(folder, manifest):
        label = manifest["classes"][row["label"]]
        if row["label"] < CLASSES and sum(image["label"] == label for image in found) < SHEET:
            image = decode(row["image"]["bytes"], row["image"]["path"])
            found.append({"label": label, "note": row.get("reason") or "", "src": thumbnail(image)})
    return found


def beside(
    files: Sequence[str],
    tested: Sequence[Photo],
    pools: Mapping[str, ImageSet],
    embed: Embed,
    read: ReadPixels,
) -> dict[str, dict[str, dict[str, Any]]]:
    """File -> ``image`` and, for each pool, its nearest image: ``src``, ``note`` and cosine ``similarity``.

    ``read`` brings photos to the pixels that ``embed`` takes; files that are not in ``tested`` are left out.
    """
    by_path = {photo.path: photo for photo in tested}
    photos = [by_path[file] for file in dict.fromkeys(files) if file in by_path]
    found: dict[str, dict[str, dict[str, Any]]] = {p.path: {"image": _shown(p, p.path)} for p in photos}
    if not photos:
        return found
    queries = _directions(embed(read(photos)))
    for name, pool in pools.items():
        if not len(pool):
            continue
        images = read(pool.photos)
        parts = (images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE))
        alike = [queries @ _directions(embed(part)).T for part in parts]
        for photo, row in zip(photos, np.concatenate(alike, axis=1), strict=True):
            found[photo.path][name] = _nearest(photo, row, pool.photos)
    return found


def _nearest(photo: Photo, alike: np.ndarray, pool: Sequence[Photo]) -> dict[str, Any]:
    # Cross-validation tests training photos: none is its own neighbour.
    others = np.where([other.sha256 == photo.sha256 for other in pool], -np.inf, alike)
    near = pool[int(others.argmax())]
    says = re.search(rf"(^|/){re.escape(near.label)}[/_ -]", near.path)
    note = near.path if says else f"{near.label}: {near.path}"
    return {**_shown(near, note), "similarity": float(others.max())}


def as_they_are(pixels: Images) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, 3 S S) rows about their own mean: for `beside` where there is no network."""
    rows = pixels[:].reshape(len(pixels), -1).astype(np.float32)
    return rows - rows.mean(axis=1, keepdims=True)


def _some(images: ImageSet, name: str) -> list[Photo]:
    return [photo for photo in images.photos if photo.label == name][:SHEET]


def _shown(photo: Photo, note: str) -> dict[str, str]:
    return {"src": thumbnail(photo.image()), "note": note}


def _directions(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
