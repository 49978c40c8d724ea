"""Sets of small squares on disk: photos by folder, synthetic images in shards."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from orchard import shards

COLOURS = {"x": (200, 30, 30), "y": (30, 200, 30), "z": (30, 30, 200), "w": (200, 200, 30)}


def write_images(folder: Path, counts: dict[str, int], size: int = 40, seed: int = 0) -> Path:
    """Noisy squares of one colour a class."""
    rng = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for index in range(count):
            noise = rng.integers(-25, 26, (size, size, 3))
            pixels = (np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


def write_shards(
    folder: Path,
    trained_on: list[str],
    classes: Sequence[str] = ("x", "y"),
    count: int = 5,
    side: int = 16,
    **arguments: str,
) -> Path:
    """``count`` synthetic squares of ``side`` pixels in each class."""
    rng = np.random.default_rng(8)
    for place, label in enumerate(classes):
        rows = []
        for index in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
            image = {"bytes": buffer.getvalue(), "path": f"{label}{index}.png"}
            columns = dict.fromkeys(("seed", "index", "steps", "guidance"), 0)
            names = dict.fromkeys(("prompt", "scheduler", "lora", "base"), "")
            rows.append({"image": image, "label": place, **columns, **names})
        header = shards.ShardHeader(
            label=label,
            classes=list(classes),
            arguments=arguments,
            trained_on=trained_on,
            versions={},
            count=count,
        )
        shards.write(shards.path_of(folder, label, 0), rows, header)
    shards.write_manifest(folder, shards.manifest_of(folder))
    return folder
