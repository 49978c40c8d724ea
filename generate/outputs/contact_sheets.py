"""Contact sheets: the first images of a class at a glance, those kept and those rejected."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from generate.outputs import metadata
from generate.outputs.credentials import SIGNED_BY, Signer, holder
from orchard import shards
from orchard.files.atomic import file_name, whole_file
from orchard.images.images import decode, square

COLUMNS, ROWS, LARGEST = 8, 6, 128
"""Images across and down, and their largest side in pixels."""
GAP = 2


def write(folder: Path, manifest: shards.Manifest, signer: Signer | None = None) -> list[str]:
    """Write ``sheets/apple.png`` and, where there are rejected images, ``sheets/rejected/apple.png``.

    ``signer`` signs those of its own images.
    """
    names = []
    for split, prefix in ((shards.TRAIN, ""), (shards.REJECTED, f"{shards.REJECTED}/")):
        by_label: dict[str, list[Path]] = {}
        for shard in shards.existing(folder, split):
            by_label.setdefault(shard.header.label, []).append(shard.path)
        for label, paths in by_label.items():
            name = f"sheets/{prefix}{file_name(label)}.png"
            pictures = list(itertools.islice(_images(paths), COLUMNS * ROWS))
            if not pictures:
                continue
            arguments = manifest["arguments"][label]
            data = metadata.png(
                sheet(pictures),
                prompt=arguments["prompt"],
                system=arguments["base"],
                adapters=arguments["lora"],
                signer=signer if holder(signer) == arguments.get(SIGNED_BY, "") else None,
            )
            with whole_file(folder / name) as aside:
                aside.write_bytes(data)
            names.append(name)
    return names


def is_of_rejected(name: str) -> bool:
    """Whether a sheet is of rejected images, by its name in the folder."""
    return Path(name).parent.name == shards.REJECTED


def _images(paths: Sequence[Path]) -> Iterator[Image.Image]:
    for path in paths:
        for row in shards.rows_of(path):
            if row["reason"] in shards.NO_IMAGE:  # a black one stands there
                continue
            yield decode(row["image"]["bytes"], row["image"]["path"])


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in rows of `COLUMNS`, on white."""
    side = min(LARGEST, max(pictures[0].size))
    rows = -(-len(pictures) // COLUMNS)
    across = min(len(pictures), COLUMNS)
    step = side + GAP
    canvas = np.full((rows * step - GAP, across * step - GAP, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (place * step for place in divmod(i, COLUMNS))
        canvas[y : y + side, x : x + side] = np.asarray(square(picture, side))
    return Image.fromarray(canvas)
