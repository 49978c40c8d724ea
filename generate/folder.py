"""What the output folder holds of each class, and what is still to be sampled for it.

The candidates of a class are numbered 0, 1, 2, …; each depends on run seed, class and number alone, and so
does the verdict on it, given those before it. The set is the first ``count`` that are kept. So the folder is
the only state there is: a run samples the numbers that are missing, and when none is and too few were kept,
exactly as many further ones as are lacking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generate.plan import PlannedShard
from generate.sources import Job
from generate.tally import of_folder
from orchard import run, shards
from orchard.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shard that lacks rows."""

    job: Job
    shard: PlannedShard
    """With the lacking rows as those that are wanted."""

    @property
    def lacking(self) -> int:
        """Rows to be sampled."""
        return len(self.shard.indices)


@dataclass(frozen=True, kw_only=True)
class Known:
    """Numbers of the candidates of a class that are there."""

    kept: np.ndarray
    rejected: np.ndarray
    twice: np.ndarray
    """Those in both splits, as a stopped run may leave them; they were rejected."""

    def missing(self, count: int) -> np.ndarray:
        """The numbers that lack below ``count`` and below the highest one that is there."""
        there = np.concatenate([self.kept, self.rejected])
        return np.setdiff1d(np.arange(max(count, there.max(initial=-1) + 1)), there)


def known(folder: Path, planned: Sequence[Job]) -> dict[str, Known]:
    """The candidates of each class, ascending."""
    sizes = {job.label: job.origin.arguments["shard_size"] for job in planned}
    numbers = {split: _numbers(folder, split, sizes) for split in (shards.TRAIN, shards.REJECTED)}
    none = np.array([], dtype=np.int64)
    found = {}
    for job in planned:
        kept, rejected = (of_split.get(job.label, none) for of_split in numbers.values())
        found[job.label] = Known(
            kept=np.setdiff1d(kept, rejected),
            rejected=np.unique(rejected),
            twice=np.intersect1d(kept, rejected),
        )
    return found


def _numbers(folder: Path, split: str, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The candidates in the shards of those classes that have a shard size."""
    found: dict[str, list[np.ndarray]] = {}
    for shard in shards.existing(folder, split):
        label = shard.origin.label
        if label not in sizes:
            continue
        numbers = shards.columns(shard.path, "index")["index"].to_numpy()
        if (numbers // sizes[label] != shard.number).any():
            raise UserError(
                f"{shard.path}: holds other rows than those of shard {shard.number}; delete it and run "
                "generate again"
            )
        found.setdefault(label, []).append(numbers)
    return {label: np.concatenate(parts) for label, parts in found.items()}


def require_fit(folder: Path, planned: Sequence[Job]) -> None:
    """Raise `UserError` unless what the folder holds goes with the plan, and its other classes are whole."""
    found = shards.existing(folder)
    labels = {job.label for job in planned}
    shards.require_complete([s for s in found if s.origin.label not in labels], folder)
    everything = [*found, *shards.existing(folder, shards.REJECTED)]
    for job in planned:
        shards.require_same(everything, job.origin, folder)


def changes(folder: Path, job: Job) -> list[str]:
    """What the class's rows that are there were made with, where it is not what new ones will be."""
    found = [*shards.existing(folder), *shards.existing(folder, shards.REJECTED)]
    own = [shard for shard in found if shard.origin.label == job.label]
    now = job.origin.made_with[-1] if job.origin.made_with else {}
    # Older shards say less.
    said = [
        run.differences(one, {key: now.get(key) for key in one}, word="now") for one in shards.made_with(own)
    ]
    return list(dict.fromkeys(filter(None, said)))


def gaps(folder: Path, planned: Sequence[Job]) -> list[Task]:
    """The shards that lack rows of the plan, or rows that they once had."""
    there = known(folder, planned)
    return [task for job in planned for task in _tasks(job, there[job.label].missing(job.origin.count))]


def lacking(folder: Path, planned: Sequence[Job], limit: float) -> list[Task]:
    """Further rows for the classes of which too many were rejected, where no row is missing.

    Raises:
        UserError: as many as ``limit`` times the count of a class were rejected, and more are needed.
    """
    found = []
    for job, there in zip(planned, known(folder, planned).values(), strict=True):
        count, start = job.origin.count, len(there.kept) + len(there.rejected)
        stop = min(start + count - len(there.kept), count + int(limit * count))
        if len(there.kept) < count and stop <= start:
            raise _too_many(folder, job, limit)
        found += _tasks(job, np.arange(start, stop))
    return found


def _too_many(folder: Path, job: Job, limit: float) -> UserError:
    return UserError(
        f"class {job.label}: {of_folder(folder, job.label)}, all that --reject_limit {limit:g} allows; look "
        f"at {folder / 'data'}/{shards.REJECTED}-*, then give a higher --reject_limit, or other --screens "
        "with another --output"
    )


def _tasks(job: Job, numbers: np.ndarray) -> list[Task]:
    size = job.origin.arguments["shard_size"]
    return [Task(job=job, shard=shard) for shard in job.plan.shards(size, numbers)]
