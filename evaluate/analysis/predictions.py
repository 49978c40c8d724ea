"""What runs answered: right or not by file, and as one vote of several runs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evaluate.records import predictions
from evaluate.records.predictions import Predictions
from evaluate.records.records import Record, complete

Replicate = tuple[Any, ...]
"""The seeds of classifier and subset, and the repeat of a cross-validation."""


def answers(run: Record) -> Predictions:
    """What a run says of its test images."""
    return predictions.of(run["predictions"], run["classes"])


def replicate(run: Record) -> Replicate:
    """What a run shares with the runs of other arms that it is paired with; the folds of a repeat are one."""
    whole = complete(run)
    return whole["seed"], whole["subset_seed"], whole["repeat"]


def by_run(runs: Sequence[Record], files: Sequence[str]) -> np.ndarray:
    """(R, N): 1 where a run is right about a file, 0 where it is wrong, NaN where it did not test it."""
    place = {file: column for column, file in enumerate(files)}
    found = np.full((len(runs), len(files)), np.nan)
    for row, run in zip(found, runs, strict=True):
        said = answers(run)
        columns = np.array([place.get(file, -1) for file in said.files], dtype=np.intp)
        row[columns[columns >= 0]] = said.right[columns >= 0]
    return found


def correctness(runs: Sequence[Record], files: Sequence[str]) -> dict[Replicate, np.ndarray]:
    """Replicate -> (N,) shares of its runs that are right about each file; NaN where none tested it."""
    rows: dict[Replicate, list[int]] = defaultdict(list)
    for row, run in enumerate(runs):
        rows[replicate(run)].append(row)
    right = by_run(runs, files)
    return {key: _share(right[places]) for key, places in rows.items()}


def _share(right: np.ndarray) -> np.ndarray:
    """(R, N) -> (N,) means of what is no NaN."""
    there = np.isfinite(right)
    count = there.sum(axis=0)
    return np.where(count, np.where(there, right, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def tested(runs: Iterable[Record]) -> list[str]:
    """Every file that one of the runs tested, sorted."""
    return sorted(set().union(*(answers(run).files for run in runs)))


def vote(runs: Sequence[Record]) -> dict[str, bool]:
    """File -> whether the class most runs predict is right; summed probability breaks ties."""
    files = tested(runs)
    place = {file: row for row, file in enumerate(files)}
    votes, weights = (np.zeros((len(files), len(runs[0]["classes"]))) for _ in range(2))
    truth = np.zeros(len(files), dtype=np.int64)
    for run in runs:
        said = answers(run)
        rows = np.array([place[file] for file in said.files], dtype=np.intp)
        votes[rows, said.predicted] += 1
        weights[rows] += said.probabilities
        truth[rows] = said.truth
    weights[votes < votes.max(axis=1, keepdims=True)] = -1
    return dict(zip(files, (weights.argmax(axis=1) == truth).tolist(), strict=True))
