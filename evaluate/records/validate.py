"""Whether a record can be believed before numbers are made of it: types, class list, predictions."""

from pathlib import Path

from evaluate.metrics import ClassScores
from evaluate.records.records import Prediction, Record
from orchard.errors import UserError
from orchard.files import checked_json


def checked(record: Record, path: Path) -> Record:
    """A complete record of the file at ``path``, as it is.

    Raises:
        UserError: it was not written by this toolkit, or has been changed since.
    """
    try:
        whole = checked_json.typed(Record, dict(record))
        classes = whole["classes"]
        checked_json.require_distinct(classes)
        checked_json.table(dict.fromkeys(classes, ClassScores), whole["per_class"])
        if [len(row) for row in whole["confusion"]] != [len(classes)] * len(classes):
            raise ValueError("its confusion matrix is not of its classes")
        _require_predictions(whole["predictions"], classes)
        for other in whole["external"].values():
            _require_predictions(other["predictions"], classes)
    except ValueError as error:
        raise UserError(f"{path}: a record is damaged ({error}); remove its line") from None
    return whole


def _require_predictions(predictions: list[Prediction], classes: list[str]) -> None:
    if not predictions:
        raise ValueError("it has no predictions")
    known = set(classes)
    for found in predictions:
        if found["truth"] not in known or found["probabilities"].keys() != known:
            raise ValueError(f"a prediction of {checked_json.shown(found['file'])} is not of its classes")
        if not all(0 <= share <= 1 for share in found["probabilities"].values()):
            raise ValueError(f"a probability of {checked_json.shown(found['file'])} is not from 0 to 1")
