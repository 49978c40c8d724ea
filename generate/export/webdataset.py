"""WebDataset: tar files of samples, each an image, its class's number and how it was made."""

import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from generate.export.items import Item

LARGEST = 2**30
"""Bytes of images from which on the next tar file begins."""


def write(folder: Path, classes: Sequence[str], items: Iterable[Item]) -> str:
    """``train-000000.tar`` and so on, ``classes.txt``: as `generate.export.items.Writer`.

    A sample is ``000000000.png``, ``.cls`` and ``.json``; its key has no class in it, since it ends at the
    first dot.
    """
    size = 0

    def file_of(item: Item) -> int:
        nonlocal size
        size += len(item.data)
        return (size - len(item.data)) // LARGEST

    keys = itertools.count()
    for number, group in itertools.groupby(items, file_of):
        with tarfile.open(folder / f"train-{number:06d}.tar", "w") as tar:
            for item in group:
                key = f"{next(keys):09d}"
                facts = {name: value for name, value in item.facts.items() if value is not None}
                _add(tar, f"{key}.png", item.data)
                _add(tar, f"{key}.cls", str(item.number).encode())
                _add(tar, f"{key}.json", json.dumps({"label": item.label, **facts}).encode())
    (folder / "classes.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
    return "datasets reads train-*.tar as `webdataset`; .cls counts the lines of classes.txt from 0"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Without a time or an owner, so that equal sets give equal files."""
    said = tarfile.TarInfo(name)
    said.size = len(data)
    tar.addfile(said, io.BytesIO(data))
