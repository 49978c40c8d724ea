"""Between two rounds of sampling: the verdicts that need all images of a class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generate import duplicates
from generate.sources import Job
from orchard import shards


def settle(folder: Path, planned: Sequence[Job]) -> None:
    """Move near-duplicates to the rejected split, and finish moves that a stopped run began.

    Only for classes without a missing row: a verdict depends on all rows before it.
    """
    (folder / shards.MANIFEST).unlink(missing_ok=True)
    for job in planned:
        found = _candidates(folder, job.label)
        rejected = _near(found) if "duplicate" in job.origin.arguments["screens"] else {}
        size = job.origin.arguments["shard_size"]
        twice = {index for index, verdicts in found.items() if len(verdicts) == 2}
        for number in sorted({index // size for index in [*rejected, *twice]}):
            rows = shards.load(folder, job.label, number)
            shards.store(folder, number, [_judged(row, rejected) for row in rows], job.origin)


def _candidates(folder: Path, label: str) -> dict[int, list[tuple[str, str]]]:
    """Number of each row -> its (hash, reason) in each split that it stands in."""
    found: dict[int, list[tuple[str, str]]] = {}
    for split in (shards.TRAIN, shards.REJECTED):
        for shard in shards.existing(folder, split):
            if shard.origin.label == label:
                rows = shards.columns(shard.path, "index", "phash", "reason").to_pydict()
                for index, *rest in zip(rows["index"], rows["phash"], rows["reason"], strict=True):
                    found.setdefault(index, []).append((rest[0], rest[1]))
    return found


def _near(found: dict[int, list[tuple[str, str]]]) -> dict[int, int]:
    """Number of each near-duplicate among the rows that no other screen rejected -> bits it is off."""
    staying = [index for index in sorted(found) if all(not reason for _, reason in found[index])]
    near = duplicates.find([found[index][0][0] for index in staying])
    return {staying[place]: bits for place, bits in near.items()}


def _judged(row: dict[str, Any], rejected: dict[int, int]) -> dict[str, Any]:
    if row["reason"] or row["index"] not in rejected:
        return row
    return row | {"reason": "duplicate", "score": float(rejected[row["index"]])}
