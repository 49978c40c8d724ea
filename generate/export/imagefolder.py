"""A folder of images per class, as torchvision's `ImageFolder` and `datasets` read it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from generate.export.items import Item, put
from orchard.files.atomic import file_name


def write(folder: Path, classes: Sequence[str], items: Iterable[Item]) -> str:
    """``apple/apple-000000.png``: as `generate.export.items.Writer`."""
    for item in items:
        put(folder / file_name(item.label) / item.name, item.data)
    return "torchvision.datasets.ImageFolder reads it, and datasets as `imagefolder`"
