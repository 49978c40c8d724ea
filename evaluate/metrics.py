"""Scores of one set of predictions: weighted averages, macro averages, and each class alone.

Undefined is `None`, never 0 or NaN, so a result is always valid JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

AT_ONCE = 64
"""Classes whose scores are ranked together."""


class Averages(TypedDict):
    """Of several classes, or of one; None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None


class ClassScores(Averages):
    """Of one class."""

    support: NotRequired[int]


class Scores(Averages):
    """What `score` gives; records of older versions lack what is not required."""

    accuracy: float
    roc_auc_classes: NotRequired[list[str]]
    nll: NotRequired[float]
    ece: NotRequired[float]
    macro: Averages
    per_class: dict[str, ClassScores]
    confusion: list[Any]
    """K rows of K counts."""


def score(truth: Sequence[str], probabilities: np.ndarray, classes: Sequence[str]) -> Scores:
    """N true class names and their (N, K) probabilities -> every metric, a share from 0 to 1 unless stated.

    The prediction is the class of highest probability, the first of equals. Keys of the result:

    - ``accuracy``; ``precision``, ``recall``, ``f1``: averages weighted by support, as scikit-learn's
      ``average="weighted"``: a class that is never predicted counts with precision 0;
    - ``roc_auc``: one-vs-rest, weighted by support over ``roc_auc_classes``, the classes where it is
      defined; `None` when there is none;
    - ``nll``: negative log-likelihood of the truth, in nats; ``ece``: expected calibration error;
    - ``macro``: plain means of the same four, over the classes present in the truth;
    - ``per_class``: a class absent from the truth has `None` for all but ``support``; one that is
      present and never predicted has precision `None`, recall 0 and F1 0;
    - ``confusion``: (K, K) counts, rows truth, columns prediction, in the order of ``classes``.

    Raises:
        ValueError: no images, shapes that do not fit, a truth outside ``classes``, repeated classes,
            or probabilities that are not finite.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    _check(truth, probabilities, classes)
    names = list(classes)
    place = {name: k for k, name in enumerate(names)}
    true = np.array([place[name] for name in truth])
    predicted = probabilities.argmax(axis=1)
    present = sorted(set(true.tolist()))
    per_class = _per_class(true, predicted, probabilities, names)
    weighted, plain, covered = _areas(per_class)
    return {
        "accuracy": float((true == predicted).mean()),
        **_averages(true, predicted, present, "weighted", weighted),
        "roc_auc_classes": covered,
        "nll": negative_log_likelihood(true, probabilities),
        "ece": expected_calibration_error(true, probabilities),
        "macro": _averages(true, predicted, present, "macro", plain),
        "per_class": per_class,
        "confusion": confusion_matrix(true, predicted, labels=range(len(names))).tolist(),
    }


def _check(truth: Sequence[str], probabilities: np.ndarray, classes: Sequence[str]) -> None:
    if len(set(classes)) != len(classes):
        raise ValueError(f"repeated names among the classes {list(classes)}")
    if not len(truth):
        raise ValueError("no images to score")
    if probabilities.shape != (len(truth), len(classes)):
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, needed: ({len(truth)}, {len(classes)})"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities that are not finite")
    strangers = sorted(set(truth) - set(classes))
    if strangers:
        raise ValueError(f"true classes {strangers} are not among {list(classes)}")


def _averages(
    true: np.ndarray, predicted: np.ndarray, present: list[int], how: str, area: float | None
) -> Averages:
    precision, recall, f1, _ = precision_recall_fscore_support(
        true, predicted, labels=present, average=how, zero_division=0
    )
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "roc_auc": area}


def _per_class(
    true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, names: list[str]
) -> dict[str, ClassScores]:
    columns = precision_recall_fscore_support(
        true, predicted, labels=range(len(names)), average=None, zero_division=0
    )
    times, areas = np.bincount(predicted, minlength=len(names)), _one_vs_rest(true, probabilities)
    result: dict[str, ClassScores] = {}
    for k, (precision, recall, f1, support) in enumerate(zip(*columns, strict=True)):
        present, guessed = support > 0, times[k] > 0
        result[names[k]] = {
            "precision": float(precision) if present and guessed else None,
            "recall": float(recall) if present else None,
            "f1": float(f1) if present else None,
            "support": int(support),
            "roc_auc": areas[k],
        }
    return result


def _areas(per_class: Mapping[str, ClassScores]) -> tuple[float | None, float | None, list[str]]:
    """The mean ROC-AUC weighted by support, the plain mean, and the classes where it is defined."""
    defined = {name: area for name, one in per_class.items() if (area := one["roc_auc"]) is not None}
    if not defined:
        return None, None, []
    areas, support = list(defined.values()), [per_class[name]["support"] for name in defined]
    return float(np.average(areas, weights=support)), float(np.mean(areas)), list(defined)


def _one_vs_rest(true: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """ROC-AUC of each class against the rest; undefined unless both are there.

    By ranks (Mann and Whitney), since scikit-learn takes milliseconds for each of a thousand classes.
    """
    found: list[float | None] = []
    for start in range(0, probabilities.shape[1], AT_ONCE):
        ranks = rankdata(probabilities[:, start : start + AT_ONCE], axis=0)
        for k, column in enumerate(ranks.T, start):
            positive = true == k
            mine = int(positive.sum())
            others = len(true) - mine
            above = column[positive].sum() - mine * (mine + 1) / 2
            found.append(float(above / (mine * others)) if mine and others else None)
    return found


BINS = 15
FLOOR = 1e-12
"""A probability of 0 for the truth would make the mean infinite, which JSON has no number for."""


def negative_log_likelihoods(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) places of the true class, (N, K) probabilities -> (N,) -log p(truth), in nats."""
    assert len(truth) == len(probabilities) >= 1, (len(truth), len(probabilities))
    return -np.log(np.maximum(probabilities[np.arange(len(truth)), truth], FLOOR))


def negative_log_likelihood(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of `negative_log_likelihoods`."""
    return float(negative_log_likelihoods(truth, probabilities).mean())


def expected_calibration_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """(N,), (N, K) -> mean |accuracy - confidence| over equal bins of confidence, 0 to 1. Guo et al. 2017.

    Bins are open below and closed above, as in the paper. With few images a bin holds one or two and
    the error is biased upwards: compare it between arms of one test set alone.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    # Rounded first, so that a confidence of 0.2 in floats falls into the bin that ends there.
    places = np.ceil(np.round(confidence * bins, 9)).astype(int).clip(1, bins)
    gaps = np.bincount(places, weights=right - confidence, minlength=bins + 1)
    return float(np.abs(gaps).sum() / len(truth))
