"""Near-duplicates among the synthetic images of one class, by perceptual hash; found between two rounds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generate.outputs.folder import ExistingRows, existing_rows
from generate.planning.jobs import Job
from orchard import shards
from orchard.files import storage

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


def reject_duplicates(folder: Path, planned: Sequence[Job]) -> None:
    """Move near-duplicates to the rejected split, and finish moves that a stopped run began.

    Only for classes without a missing row: a verdict depends on all rows before it.
    """
    storage.remove(folder / shards.MANIFEST)
    there = existing_rows(folder, planned)
    for job in planned:
        rejected = _near(folder, job, there[job.label])
        size = job.header.arguments["shard_size"]
        for number in sorted({index // size for index in [*rejected, *there[job.label].twice.tolist()]}):
            rows = [_judged(row, rejected) for row in shards.load(folder, job.label, number)]
            # The rows stay what they were made with.
            shards.store(folder, number, rows, replace(job.header, made_with=[]))


def _near(folder: Path, job: Job, there: ExistingRows) -> dict[int, int]:
    """Number of each near-duplicate among the rows that no screen has rejected -> bits it is off."""
    if "duplicate" not in job.header.arguments["screens"]:
        return {}
    parts = list(_hashes(folder, job.label))
    if not parts:  # a class without rows, or one whose images were all rejected
        return {}
    numbers = np.concatenate([number for number, _ in parts])
    order = np.argsort(numbers)
    order = order[np.isin(numbers[order], there.kept)]
    near = find(np.concatenate([found for _, found in parts])[order])
    return {int(numbers[order[place]]): bits for place, bits in near.items()}


def _hashes(folder: Path, label: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and hashes of the rows in each shard of the training split."""
    for shard in shards.existing(folder):
        if shard.header.label == label:
            table = shards.columns(shard.path, "index", "phash")
            yield table["index"].to_numpy(), numbers(table["phash"].to_pylist())


def _judged(row: dict[str, Any], rejected: dict[int, int]) -> dict[str, Any]:
    if row["reason"] or row["index"] not in rejected:
        return row
    return row | {"reason": "duplicate", "score": float(rejected[row["index"]])}
