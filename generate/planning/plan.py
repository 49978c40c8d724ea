"""classes x count x seed -> shards of rows: pure, so every process and every restart agrees."""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from generate.planning.init_images import InitImages
from generate.planning.repainting import Canvas, Repaints
from generate.planning.steering import Steering
from orchard.images.images import Photo
from orchard.images.splits import stable_hash

Indices = range | np.ndarray
"""Numbers of rows of a class, ascending."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to be."""

    label: str
    index: int
    seed: int
    prompt: str
    guide: Photo | None = None
    """The real training image it is started from."""
    canvas: Canvas | None = None
    """What is repainted of that image; None where all of it is."""
    guidance: float
    strength: float | None = None
    """Share of the guide that is replaced."""
    negative: str = ""
    """The prompt that it is led away from."""
    other: str = ""
    """The prompt of another class that it is led away from."""
    attempt: int = 0
    """How many seeds were given up before this one."""
    fault: str = ""
    """What is wrong with the image of its last seed, where none gave one that can be used."""

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
    """Place ``index`` of the set takes number ``index`` of them, beginning again after the last."""
    guides: InitImages | None = None
    repaints: Repaints | None = None
    """What is repainted of each guide."""
    steering: Steering = field(default_factory=Steering)
    candidates: int = 1
    """Rows in a place of the set, of which one is kept; they share prompt, guide and other class."""

    def row(self, index: int) -> Row:
        """Row ``index``, whether or not it lies within the count."""
        seed, place = self._seed(index), index // self.candidates
        guide = self.guides.of(place) if self.guides else None
        return Row(
            label=self.label,
            index=index,
            seed=seed,
            prompt=self.prompts[place % len(self.prompts)],
            guide=guide,
            canvas=self.repaints.canvas(guide) if guide and self.repaints else None,
            guidance=self.steering.guidance_of(seed),
            strength=self.steering.strength_of(seed),
            negative=self.steering.negative,
            other=self.steering.other_of(place, self.seed, self.label),
        )

    def strength(self, index: int) -> float | None:
        """The strength of row ``index``."""
        return self.steering.strength_of(self._seed(index))

    def _seed(self, index: int) -> int:
        return stable_hash(self.seed, self.label, index)

    def shards(self, size: int, wanted: Indices | None = None) -> "Iterator[PlannedShard]":
        """The shards that hold the ``wanted`` rows, by default those of the whole count.

        A larger count has the smaller one's rows at its start.
        """
        left: Indices = range(self.count) if wanted is None else wanted
        while len(left):
            number = int(left[0]) // size
            end = bisect.bisect_left(left, (number + 1) * size)
            yield PlannedShard(plan=self, number=number, first=number * size, indices=left[:end])
            left = left[end:]


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """Shard ``number`` of a class, with those of its rows that are wanted."""

    plan: ClassPlan
    number: int
    first: int
    """Index of the shard's first row, wanted or not."""
    indices: Indices
    """The rows that are wanted."""

    def spans(self, size: int) -> list[list[int]]:
        """Indices of the sampling batches that hold every wanted row, each in its place.

        A batch has rows of one strength, as many as those have steps. Batch borders are counted from the
        shard's first row; rows before a wanted one of its batch are sampled along, so that it has the place
        in its batch that it has in an undisturbed run.
        """
        wanted = {int(index) for index in self.indices}
        alike: dict[float | None, list[int]] = {}
        for index in range(self.first, int(self.indices[-1]) + 1):
            alike.setdefault(self.plan.strength(index), []).append(index)
        batches = [
            same[start : start + size] for same in alike.values() for start in range(0, len(same), size)
        ]
        ends = [
            max((n for n, index in enumerate(batch, 1) if index in wanted), default=0) for batch in batches
        ]
        return [batch[:end] for batch, end in zip(batches, ends, strict=True) if end]

    def batches(self, size: int) -> Iterator[list[Row]]:
        """The rows of the `spans`."""
        for span in self.spans(size):
            yield [self.plan.row(index) for index in span]
