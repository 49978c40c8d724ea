"""Between two rounds of sampling: the verdicts that need all images of a class."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from generate import duplicates
from generate.folder import Known, known
from generate.sources import Job
from orchard import shards, storage


def settle(folder: Path, planned: Sequence[Job]) -> None:
    """Move near-duplicates to the rejected split, and finish moves that a stopped run began.

    Only for classes without a missing row: a verdict depends on all rows before it.
    """
    storage.remove(folder / shards.MANIFEST)
    there = known(folder, planned)
    for job in planned:
        rejected = _near(folder, job, there[job.label])
        size = job.origin.arguments["shard_size"]
        for number in sorted({index // size for index in [*rejected, *there[job.label].twice.tolist()]}):
            rows = [_judged(row, rejected) for row in shards.load(folder, job.label, number)]
            # The rows stay what they were made with.
            shards.store(folder, number, rows, replace(job.origin, made_with=[]))


def _near(folder: Path, job: Job, there: Known) -> dict[int, int]:
    """Number of each near-duplicate among the rows that no screen has rejected -> bits it is off."""
    if "duplicate" not in job.origin.arguments["screens"]:
        return {}
    parts = list(_hashes(folder, job.label))
    if not parts:  # a class without rows, or one whose images were all rejected
        return {}
    numbers = np.concatenate([number for number, _ in parts])
    order = np.argsort(numbers)
    order = order[np.isin(numbers[order], there.kept)]
    near = duplicates.find(np.concatenate([found for _, found in parts])[order])
    return {int(numbers[order[place]]): bits for place, bits in near.items()}


def _hashes(folder: Path, label: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers and hashes of the rows in each shard of the training split."""
    for shard in shards.existing(folder):
        if shard.origin.label == label:
            table = shards.columns(shard.path, "index", "phash")
            yield table["index"].to_numpy(), duplicates.numbers(table["phash"].to_pylist())


def _judged(row: dict[str, Any], rejected: dict[int, int]) -> dict[str, Any]:
    if row["reason"] or row["index"] not in rejected:
        return row
    return row | {"reason": "duplicate", "score": float(rejected[row["index"]])}
