"""What a run answered: its predictions as names, as arrays, and as one vote of several runs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Record = Mapping[str, Any]
"""One finished run: a line of ``records.jsonl``."""


def predicted(prediction: Record) -> str:
    """The class of highest probability, the first of equals."""
    probabilities = prediction["probabilities"]
    return max(probabilities, key=probabilities.__getitem__)


def right(prediction: Record) -> bool:
    """Whether the answer is the true class."""
    return predicted(prediction) == prediction["truth"]


def correctness(runs: Sequence[Record], files: Sequence[str]) -> np.ndarray:
    """(S, N): 1 for right, 0 for wrong, NaN for a file that a run did not test."""
    rows = []
    for run in runs:
        known = {prediction["file"]: float(right(prediction)) for prediction in run["predictions"]}
        rows.append([known.get(file, np.nan) for file in files])
    return np.array(rows, dtype=np.float64)


def tested(runs: Sequence[Record]) -> list[str]:
    """Every file that one of the runs tested, sorted."""
    return sorted({prediction["file"] for run in runs for prediction in run["predictions"]})


def probabilities(run: Record) -> tuple[np.ndarray, np.ndarray]:
    """A run's true classes as (N,) places in its class list, and its (N, K) probabilities."""
    place = {name: k for k, name in enumerate(run["classes"])}
    truth = np.array([place[prediction["truth"]] for prediction in run["predictions"]], dtype=np.int64)
    rows = [[p["probabilities"][name] for name in place] for p in run["predictions"]]
    return truth, np.array(rows, dtype=np.float64)


def vote(runs: Sequence[Record]) -> dict[str, bool]:
    """File -> whether the class most runs predict is right; summed probability breaks ties."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    weights: dict[str, Counter[str]] = defaultdict(Counter)
    truth: dict[str, str] = {}
    for prediction in (prediction for run in runs for prediction in run["predictions"]):
        file = prediction["file"]
        truth[file] = prediction["truth"]
        votes[file][predicted(prediction)] += 1
        weights[file].update(prediction["probabilities"])
    return {
        file: max(votes[file], key=lambda name: (votes[file][name], weights[file][name])) == truth[file]
        for file in truth
    }
