"""Decoded images by row: in memory where they fit, else in a file that is mapped into it."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

import numpy as np

from orchard import memory
from orchard.errors import UserError
from orchard.files import atomic, scratch
from orchard.files.scratch import SHARE
from orchard.images.images import Photo, each

GIB = 2**30


class Images(Protocol):
    """(N, S, S, 3) uint8 pixels by row, wherever they lie; an `np.ndarray` is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | np.ndarray, /) -> np.ndarray: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


class Rows:
    """Images that lie anywhere as one `Images`, copied only when they are asked for."""

    def __init__(self, rows: Sequence[np.ndarray], size: int) -> None:
        self.rows, self.size = rows, size

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return len(self.rows), self.size, self.size, 3

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | np.ndarray, /) -> np.ndarray:
        rows = self.rows[index] if isinstance(index, slice) else [self.rows[place] for place in index]
        return np.stack(rows) if rows else np.zeros((0, *self.shape[1:]), np.uint8)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.rows)


def joined(*parts: Images) -> Images:
    """The images of all parts, of one size, one part after the other."""
    return Rows([row for part in parts for row in part], parts[0].shape[1])


def fits(images: Images, room: int) -> bool:
    """Whether the images take at most `SHARE` of ``room`` bytes."""
    return math.prod(images.shape) <= SHARE * room


def decoded(
    photos: Sequence[Photo],
    size: int,
    through: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """(N, size, size, 3) uint8, as `orchard.images.images.pixels`; ``advance`` is called for every image.

    Where that is more than `SHARE` of the free memory, the array is a file without a name, of which the
    system keeps in memory what it can. It is gone with the array, or with the process, however that ends.

    Raises:
        UserError: a file is no whole image, or the disk has no room for the pixels.
    """
    shape = len(photos), size, size, 3
    rows = each(photos, size, through)
    with closing(rows):
        if math.prod(shape) > SHARE * memory.free():
            return _on_disk(rows, shape, advance)
        found = np.empty(shape, np.uint8)
        for place, row in enumerate(rows):
            found[place] = row
            advance(1)
        return found


def _on_disk(
    rows: Iterator[np.ndarray], shape: tuple[int, ...], advance: Callable[[int], None]
) -> np.ndarray:
    folder = scratch.folder()
    # Each process of a launch here has a file of its own.
    needed = math.prod(shape) / GIB * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    there = shutil.disk_usage(folder).free / GIB
    if needed >= there:
        raise UserError(
            f"{shape[0]} images at {shape[1]} px take {needed:.1f} GiB, more than {SHARE:.0%} of the free "
            f"memory, and {folder} has {there:.1f} GiB; make room there, point TMPDIR to another folder, or "
            "lower --size"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        for row in rows:
            with atomic.written(folder):
                file.write(row.data)
            advance(1)
        with atomic.written(folder):
            file.flush()
            os.fsync(file.fileno())  # else what cannot be written is found out when it is read
        return np.asarray(np.memmap(file, np.uint8, "r+", shape=shape))
