"""Whether a record can be believed before numbers are made of it: types, class list, predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.files import checked_json

Score = float | None
SCORES: Mapping[str, Any] = dict.fromkeys(("precision", "recall", "f1", "roc_auc"), Score)
FIELDS: Mapping[str, Any] = {
    "arm": str,
    "design": str,
    "ratio": float,
    "seed": int,
    "mixing": str,
    "classes": list[str],
    **dict.fromkeys(("shots", "fold", "repeat", "subset_seed", "generator_seed"), int | None),
    **dict.fromkeys(("n_real", "n_synthetic", "steps", "total"), int),
    "accuracy": float,
    "predictions": list[dict[str, Any]],
    "macro": dict[str, Score],
    "per_class": dict[str, dict[str, Score]],
    "confusion": list[list[int]],
    "external": dict[str, dict[str, Any]],
    "mixing_choice": dict[str, Any] | None,
    "commit": str | None,
    **SCORES,
}
PREDICTION: Mapping[str, Any] = {"file": str, "truth": str, "probabilities": dict[str, float]}
CHOICE: Mapping[str, Any] = {"chosen": str, "tried": dict[str, float], "untried": list[str]}


def checked(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A complete record of the file at ``path``, as it is.

    Raises:
        UserError: it was not written by this toolkit, or has been changed since.
    """
    try:
        whole = checked_json.table(FIELDS, dict(record))
        _require_scores(whole, whole["classes"])
        for name, other in whole["external"].items():
            found = checked_json.conform(list[dict[str, Any]], other.get("predictions"), f"external.{name}")
            _require_predictions(found, whole["classes"])
            checked_json.conform(float, other.get("accuracy"), f"external.{name}.accuracy")
        if whole["mixing_choice"] is not None:
            checked_json.table(CHOICE, whole["mixing_choice"])
    except ValueError as error:
        raise UserError(f"{path}: a record is damaged ({error}); remove its line") from None
    return whole


def _require_scores(whole: Mapping[str, Any], classes: list[str]) -> None:
    """Raise `ValueError` unless scores and predictions are of this class list."""
    checked_json.require_distinct(classes)
    checked_json.table(SCORES, whole["macro"])
    for name in classes:
        checked_json.table(SCORES, whole["per_class"].get(name))
    if [len(row) for row in whole["confusion"]] != [len(classes)] * len(classes):
        raise ValueError("its confusion matrix is not of its classes")
    _require_predictions(whole["predictions"], classes)


def _require_predictions(predictions: list[dict[str, Any]], classes: list[str]) -> None:
    if not predictions:
        raise ValueError("it has no predictions")
    known = set(classes)
    for prediction in predictions:
        found = checked_json.table(PREDICTION, prediction)
        if found["truth"] not in known or found["probabilities"].keys() != known:
            raise ValueError(f"a prediction of {checked_json.shown(found['file'])} is not of its classes")
        if not all(0 <= share <= 1 for share in found["probabilities"].values()):
            raise ValueError(f"a probability of {checked_json.shown(found['file'])} is not from 0 to 1")
