"""What a run answered: its predictions as names, as arrays, and as one vote of several runs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluate.records.records import Prediction, Record, complete

Replicate = tuple[Any, ...]
"""The seeds of classifier and subset, and the repeat of a cross-validation."""


def predicted(prediction: Prediction) -> str:
    """The class of highest probability, the first of equals."""
    probabilities = prediction["probabilities"]
    return max(probabilities, key=probabilities.__getitem__)


def right(prediction: Prediction) -> bool:
    """Whether the answer is the true class."""
    return predicted(prediction) == prediction["truth"]


def replicate(run: Record) -> Replicate:
    """What a run shares with the runs of other arms that it is paired with; the folds of a repeat are one."""
    whole = complete(run)
    return whole["seed"], whole["subset_seed"], whole["repeat"]


def correctness(runs: Sequence[Record], files: Sequence[str]) -> dict[Replicate, np.ndarray]:
    """Replicate -> (N,) shares of its runs that are right about each file; NaN where none tested it."""
    answers: dict[Replicate, list[dict[str, float]]] = defaultdict(list)
    for run in runs:
        known = {prediction["file"]: float(right(prediction)) for prediction in run["predictions"]}
        answers[replicate(run)].append(known)
    return {key: np.array([_mean(known, file) for file in files]) for key, known in answers.items()}


def _mean(known: Sequence[Mapping[str, float]], file: str) -> float:
    found = [answers[file] for answers in known if file in answers]
    return sum(found) / len(found) if found else np.nan


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
