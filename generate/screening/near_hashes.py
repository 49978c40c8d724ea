"""Near-duplicates among many 64-bit hashes, in about linear time: multi-index hashing (arXiv 1307.2982)."""

from dataclasses import dataclass, field

import numpy as np

BITS = 4
"""Of 64: images whose hashes differ in no more are near-duplicates."""
BANDS = BITS + 1
"""Parts of a hash. Two hashes that differ in `BITS` bits agree in one part at least."""
BLOCK = 1024
PAIRS = 2**22
"""Pairs of hashes that are compared together."""
MASKS = [np.uint64(sum(1 << bit for bit in range(band, 64, BANDS))) for band in range(BANDS)]
"""Every fifth bit: the low frequencies of a perceptual hash stand side by side and are alike in a class."""


def find(hashes: np.ndarray) -> dict[int, int]:
    """(N,) uint64 hashes in the order of their images -> {near-duplicate's position: bits off the nearest}.

    An image stays unless it is near to one that stays before it, so that the verdict on each depends on
    those before it alone and a longer list begins with the same verdicts.
    """
    found: dict[int, int] = {}
    staying = Staying()
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        off = staying.nearest(block)
        between = np.bitwise_count(block[:, None] ^ block)
        beside = np.tril(between <= BITS, -1)
        for row in np.flatnonzero(beside.any(axis=1)):
            near = between[row, beside[row] & (off > BITS)]
            off[row] = min(off[row], *near.tolist()) if len(near) else off[row]
        found |= {start + int(row): int(off[row]) for row in np.flatnonzero(off <= BITS)}
        staying.add(block[off > BITS])
    return found


@dataclass
class Staying:
    """Hashes to which others may be near, in runs that are sorted by each part; a run is at most half of the
    one before it.
    """

    runs: list[list[np.ndarray]] = field(default_factory=list)

    def add(self, hashes: np.ndarray) -> None:
        """These as well."""
        while self.runs and len(self.runs[-1][0]) < 2 * len(hashes):
            hashes = np.concatenate([self.runs.pop()[0], hashes])
        self.runs.append([hashes[np.argsort(hashes & mask)] for mask in MASKS])

    def nearest(self, hashes: np.ndarray) -> np.ndarray:
        """(N,) bits that each is off the nearest one; more than `BITS` where none is near."""
        off = np.full(len(hashes), BITS + 1, dtype=np.uint8)
        for run in self.runs:
            for mask, ordered in zip(MASKS, run, strict=True):
                keys, own = ordered & mask, hashes & mask
                first, last = (np.searchsorted(keys, own, side) for side in ("left", "right"))
                _compare(hashes, ordered, first, last, off)
        return off


def _compare(
    hashes: np.ndarray, others: np.ndarray, first: np.ndarray, last: np.ndarray, off: np.ndarray
) -> None:
    """Lower ``off`` by the others from ``first`` to before ``last`` of each hash."""
    counts = last - first
    ends = np.cumsum(counts)
    for pairs in range(0, int(ends[-1]) if len(ends) else 0, PAIRS):
        numbers = np.arange(pairs, min(pairs + PAIRS, int(ends[-1])))
        rows = np.searchsorted(ends, numbers, "right")
        places = numbers - (ends[rows] - counts[rows]) + first[rows]
        np.minimum.at(off, rows, np.bitwise_count(hashes[rows] ^ others[places]))
