"""classes x count x seed -> shards of rows: pure, so every process and every restart agrees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from generate.guides import Guides
from orchard.images import Photo
from orchard.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to be."""

    label: str
    index: int
    seed: int
    prompt: str
    guide: Photo | None = None
    """The real training image it is started from."""
    attempt: int = 0
    """How many seeds were given up before this one."""

    def again(self) -> "Row":
        """The same row with its next seed, which depends on run seed, class, index and attempt alone."""
        attempt = self.attempt + 1
        return replace(self, attempt=attempt, seed=stable_hash(self.seed, attempt))


@dataclass(frozen=True, kw_only=True)
class ClassPlan:
    """All that decides the rows of one class; rows are made when they are asked for."""

    label: str
    seed: int
    count: int
    prompts: Sequence[str]
    """Row ``index`` takes number ``index`` of them, beginning again after the last."""
    guides: Guides | None = None

    def row(self, index: int) -> Row:
        """Row ``index``, whether or not it lies within the count."""
        return Row(
            label=self.label,
            index=index,
            seed=stable_hash(self.seed, self.label, index),
            prompt=self.prompts[index % len(self.prompts)],
            guide=self.guides.of(index) if self.guides else None,
        )

    def shards(self, size: int) -> "Iterator[PlannedShard]":
        """The shards of the class; a larger count has the smaller one's rows at its start."""
        for first in range(0, self.count, size):
            indices = range(first, min(first + size, self.count))
            yield PlannedShard(plan=self, number=first // size, indices=indices)


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """Shard ``number`` of a class."""

    plan: ClassPlan
    number: int
    indices: range

    def batches(self, size: int, kept: int = 0) -> Iterator[list[Row]]:
        """Rows in sampling batches, from the batch that holds the first row after ``kept`` rows.

        Batch borders are counted from the shard's first row, so a row keeps its place in its batch.
        """
        for start in range(kept // size * size, len(self.indices), size):
            yield [self.plan.row(index) for index in self.indices[start : start + size]]
