"""What the output folder holds of each class, what is still to be sampled, and what came of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generate.planning.jobs import Job
from generate.planning.plan import PlannedShard
from orchard import errors, shards
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
class ExistingRows:
    """Numbers of the candidates of a class that are there."""

    kept: np.ndarray
    rejected: np.ndarray

    def missing(self, count: int) -> np.ndarray:
        """The numbers that lack below ``count`` and below the highest one that is there."""
        there = np.concatenate([self.kept, self.rejected])
        return np.setdiff1d(np.arange(max(count, there.max(initial=-1) + 1)), there)


def existing_rows(folder: Path, planned: Sequence[Job]) -> dict[str, ExistingRows]:
    """The candidates of each class, ascending."""
    sizes = {job.label: job.header.arguments["shard_size"] for job in planned}
    numbers = {split: _numbers(folder, split, sizes) for split in (shards.TRAIN, shards.REJECTED)}
    none = np.array([], dtype=np.int64)
    found = {}
    for job in planned:
        kept, rejected = (of_split.get(job.label, none) for of_split in numbers.values())
        found[job.label] = ExistingRows(
            kept=np.setdiff1d(kept, rejected),
            rejected=np.unique(rejected),
        )
    return found


def _numbers(folder: Path, split: str, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The candidates in the shards of those classes that have a shard size."""
    found: dict[str, list[np.ndarray]] = {}
    for shard in shards.existing(folder, split):
        label = shard.header.label
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
    shards.require_complete([s for s in found if s.header.label not in labels], folder)
    away = shards.existing(folder, shards.REJECTED)
    everything = [*found, *away]
    if lone := {s.header.label for s in away} - {s.header.label for s in found} - labels:
        raise UserError(
            f"{folder}: of class {min(lone)} there are rejected images alone; finish it, or remove "
            f"{shards.path_of(folder, min(lone), 0, shards.REJECTED)} and those after it"
        )
    for job in planned:
        shards.require_same(everything, job.header, folder)


def changes(folder: Path, job: Job) -> list[str]:
    """What the class's rows that are there were made with, where it is not what new ones will be."""
    found = [*shards.existing(folder), *shards.existing(folder, shards.REJECTED)]
    own = [shard for shard in found if shard.header.label == job.label]
    now = job.header.made_with[-1] if job.header.made_with else {}
    said = []
    for one in shards.made_with(own):
        shared = one.keys() & now.keys()  # older shards say less, or of options that are gone
        said.append(errors.differences(*({key: d[key] for key in shared} for d in (one, now)), word="now"))
    return list(dict.fromkeys(filter(None, said)))


def gaps(folder: Path, planned: Sequence[Job]) -> list[Task]:
    """The shards that lack rows of the plan, or rows that they once had."""
    there = existing_rows(folder, planned)
    return [
        task
        for job in planned
        for task in _tasks(job, there[job.label].missing(job.header.count * job.plan.candidates))
    ]


def lacking(folder: Path, planned: Sequence[Job], limit: float) -> list[Task]:
    """Further rows for the classes of which too many were rejected, where no row is missing.

    Raises:
        UserError: as many places as ``limit`` times the count of a class have no row that is kept, and more
            are needed.
    """
    found = []
    for job, there in zip(planned, existing_rows(folder, planned).values(), strict=True):
        count, each, rows = job.header.count, job.plan.candidates, len(there.kept) + len(there.rejected)
        start = rows // each
        stop = min(start + count - len(there.kept), count + int(limit * count))
        if len(there.kept) < count and stop <= start:
            raise _too_many(folder, job, limit)
        found += _tasks(job, np.arange(rows, stop * each))
    return found


def numbered(tasks: Sequence[Task]) -> list[tuple[str, np.ndarray]]:
    """The tasks as class and rows, for the other processes."""
    return [(task.job.label, np.asarray(task.shard.indices)) for task in tasks]


def tasks_of(planned: Sequence[Job], rows: Sequence[tuple[str, np.ndarray]]) -> list[Task]:
    """The tasks that `numbered` has told of."""
    of = {job.label: job for job in planned}
    return [task for label, numbers in rows for task in _tasks(of[label], numbers)]


def _too_many(folder: Path, job: Job, limit: float) -> UserError:
    return UserError(
        f"class {job.label}: {of_folder(folder, job.label)}, all that --reject_limit {limit:g} allows; look "
        f"at {folder / 'data'}/{shards.REJECTED}-*, then give a higher --reject_limit, or apply other "
        f"--screens to what is there with --rescreen{_given_up(folder, job.label)}"
    )


def _given_up(folder: Path, label: str) -> str:
    """What mends rows of which no seed gave an image, if the class has any."""
    away = [shard for shard in shards.existing(folder, shards.REJECTED) if shard.header.label == label]
    reasons = [
        reason for shard in away for reason in shards.columns(shard.path, "reason")["reason"].to_pylist()
    ]
    found = Counter(reason for reason in reasons if reason in shards.NO_IMAGE)
    said = ", ".join(f"{number} rows were {reason}" for reason, number in sorted(found.items()))
    return f"; {said} with every seed: try another --prompt, with another --output" if said else ""


def _tasks(job: Job, numbers: np.ndarray) -> list[Task]:
    size = job.header.arguments["shard_size"]
    return [Task(job=job, shard=shard) for shard in job.plan.shards(size, numbers)]


@dataclass(kw_only=True)
class ImageCounts:
    """Counts of images, in a run or in a folder."""

    requested: int = 0
    written: int = 0
    flagged: int = 0
    """Given up for being no data, and sampled anew with other seeds."""
    rejected: int = 0
    """Kept apart by a screen, and replaced by further rows."""
    not_chosen: int = 0
    """Candidates in whose place another one was kept."""

    def __str__(self) -> str:
        kept = f"requested {self.requested}, written {self.written}"
        said = f"{kept}, flagged {self.flagged}, rejected {self.rejected}"
        return f"{said}, not chosen {self.not_chosen}" if self.not_chosen else said


def of_folder(folder: Path, label: str | None = None) -> ImageCounts:
    """What the folder was asked for and holds, of one class or of all."""
    kept, rejected = (
        [shard for shard in shards.existing(folder, split) if label in (None, shard.header.label)]
        for split in (shards.TRAIN, shards.REJECTED)
    )
    reasons = [shards.columns(shard.path, "reason")["reason"].to_pylist() for shard in rejected]
    not_chosen = sum(of_shard.count(shards.NOT_CHOSEN) for of_shard in reasons)
    return ImageCounts(
        requested=sum(shards.requested_counts([*kept, *rejected]).values()),
        written=sum(shard.rows for shard in kept),
        flagged=sum(map(shards.discarded_count, [*kept, *rejected])),
        rejected=sum(shard.rows for shard in rejected) - not_chosen,
        not_chosen=not_chosen,
    )
