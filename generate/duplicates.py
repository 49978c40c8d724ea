"""Near-duplicates among the synthetic images of one class, by perceptual hash."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

BITS = 4
"""Of 64: images whose hashes differ in no more are near-duplicates."""
CHUNK = 16


def phash(image: Image.Image) -> str:
    """16 hex digits that similar images share: signs of the lowest 8 x 8 frequencies of the picture."""
    import imagehash

    return str(imagehash.phash(image))


def numbers(hashes: Sequence[str]) -> np.ndarray:
    """(N,) uint64 of as many hashes."""
    return np.array([int(digits, 16) for digits in hashes], dtype=np.uint64)


def find(hashes: np.ndarray) -> dict[int, int]:
    """(N,) uint64 hashes in the order of their images -> {near-duplicate's position: bits off the nearest}.

    An image stays unless it is near to one that stays before it, so that the verdict on each depends on
    those before it alone and a longer list begins with the same verdicts.
    """
    found: dict[int, int] = {}
    for later, earlier, bits in _pairs(hashes):
        staying = [int(n) for place, n in zip(earlier, bits, strict=True) if int(place) not in found]
        if staying:
            found[later] = min(staying)
    return found


def _pairs(hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each position in turn with the earlier ones that are near to it, and in how many bits they differ."""
    for start in range(0, len(hashes), CHUNK):
        block = hashes[start : start + CHUNK]
        differing = np.bitwise_count(block[:, None] ^ hashes[None, : start + len(block)])
        rows, columns = np.nonzero(differing <= BITS)
        earlier = columns < start + rows
        rows, columns = rows[earlier], columns[earlier]
        for row in np.unique(rows):
            near = columns[rows == row]
            yield start + int(row), near, differing[row, near]
