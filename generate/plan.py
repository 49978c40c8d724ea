"""classes x count x seed -> shards of rows: pure, so every process and every restart agrees."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchard.splits import stable_hash


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image to be: row ``index`` of its class, with a seed that depends on nothing else."""

    label: str
    index: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """Shard ``number`` of a class and its rows."""

    label: str
    number: int
    rows: tuple[Row, ...]


def row(label: str, index: int, seed: int) -> Row:
    """Row ``index`` of class ``label`` in a run with ``seed``."""
    return Row(label=label, index=index, seed=stable_hash(seed, label, index))


def plan(label: str, count: int, seed: int, shard_size: int) -> list[PlannedShard]:
    """The shards of one class; a larger ``count`` has the smaller one's rows at its start."""
    return [
        PlannedShard(
            label=label,
            number=start // shard_size,
            rows=tuple(row(label, k, seed) for k in range(start, min(start + shard_size, count))),
        )
        for start in range(0, count, shard_size)
    ]


def batches(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Rows in sampling batches; batch borders are counted from the shard's first row."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
