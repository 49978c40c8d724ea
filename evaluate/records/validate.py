"""Whether a record can be believed before numbers are made of it: types, class list, predictions."""

from pathlib import Path
from typing import Any

import numpy as np

from evaluate.metrics import ClassScores
from evaluate.records.records import Record
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
        _require_counts(whole["confusion"], len(classes))
    except ValueError as error:
        raise UserError(f"{path}: a record is damaged ({error}); remove its line") from None
    return whole


def _require_counts(confusion: list[Any], classes: int) -> None:
    """At once, not one by one: of 1,000 classes there are a million."""
    try:
        counts = np.array(confusion)
    except ValueError:  # rows of different lengths
        counts = np.empty(0)
    if counts.dtype.kind != "i" or counts.shape != (classes, classes):
        raise ValueError("its confusion matrix is not of its classes")
