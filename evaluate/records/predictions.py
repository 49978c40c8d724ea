"""What a classifier says of test images: by columns in memory and in files, image by image for readers."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypedDict, overload

import numpy as np

from orchard.files import checked_json

DIGITS = 8
"""Those of a probability, or of what it lacks to 1, that are kept: logits are of float32 at best."""
POWERS = np.array([float(10**n) for n in range(23)])
"""The powers of ten that floats hold exactly."""
NEAR_ONE = 15
"""Decimals that a float between 1/2 and 1 has."""


class Prediction(TypedDict):
    """What a classifier says of one test image."""

    file: str
    truth: str
    probabilities: dict[str, float]


class Columns(TypedDict):
    """The predictions of a run as a line of `records.jsonl` has them."""

    files: list[str]
    truth: list[str]
    probabilities: list[Any]
    """A row an image, in the order of the record's classes."""


class Predictions(Sequence[Prediction]):
    """The predictions of a run; each is made when it is asked for."""

    def __init__(
        self, files: Sequence[str], truth: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
    ) -> None:
        assert len(files) == len(truth) == len(probabilities), (len(files), len(truth), len(probabilities))
        self.files, self.classes = tuple(files), tuple(classes)
        self.truth = truth
        """(N,) int64 places in the class list."""
        self.probabilities = probabilities
        """(N, K) float64."""

    @cached_property
    def predicted(self) -> np.ndarray:
        """(N,) places of the classes of highest probability, the first of equals."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) whether the answer is the true class."""
        return self.predicted == self.truth

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> "Predictions": ...

    def __getitem__(self, index: int | slice) -> "Prediction | Predictions":
        if isinstance(index, slice):
            return Predictions(self.files[index], self.truth[index], self.probabilities[index], self.classes)
        shares = dict(zip(self.classes, self.probabilities[index].tolist(), strict=True))
        return {"file": self.files[index], "truth": self.classes[self.truth[index]], "probabilities": shares}

    def __iter__(self) -> Iterator[Prediction]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Predictions)
            and (self.files, self.classes) == (other.files, other.classes)
            and np.array_equal(self.truth, other.truth)
            and np.array_equal(self.probabilities, other.probabilities)
        )

    __hash__ = None  # type: ignore[assignment]

    def columns(self) -> Columns:
        """As `read` takes them."""
        truth = [self.classes[place] for place in self.truth]
        return {"files": list(self.files), "truth": truth, "probabilities": self.probabilities.tolist()}


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) shares from 0 to 1, each to `DIGITS` of itself or of what it lacks to 1, whichever is less.

    Raises:
        ValueError: not all of them are finite.
    """
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities that are not finite")
    least = np.minimum(probabilities, 1 - probabilities)
    wanted = DIGITS - 1 - np.floor(np.log10(np.maximum(least, 1 / POWERS[-1]))).astype(int)
    scale = POWERS[np.minimum(wanted, np.where(probabilities < 0.5, len(POWERS) - 1, NEAR_ONE))]
    return np.rint(probabilities * scale) / scale


def of(found: Sequence[Prediction], classes: Sequence[str]) -> Predictions:
    """The predictions by columns."""
    if isinstance(found, Predictions):
        return found
    place = {name: k for k, name in enumerate(classes)}
    return Predictions(
        [one["file"] for one in found],
        np.array([place[one["truth"]] for one in found], dtype=np.int64),
        np.array([[one["probabilities"][name] for name in classes] for one in found], dtype=np.float64),
        classes,
    )


def read(value: Any, classes: Sequence[str]) -> Predictions:
    """Predictions as a line has them: by columns, or one after the other as older versions wrote them.

    Raises:
        ValueError: there are none, or one is not of these classes.
    """
    if isinstance(value, list):
        return of(_one_by_one(value, classes), classes)
    table = checked_json.typed(Columns, value, "predictions.")
    files, place = table["files"], {name: k for k, name in enumerate(classes)}
    for file, name in zip(files, table["truth"], strict=True):
        if name not in place:
            raise _not_of_classes(file)
    shares = np.array(table["probabilities"])
    if shares.dtype.kind not in "fi" or shares.shape != (len(files), len(classes)) or not len(files):
        raise ValueError(f"no {len(classes)} probabilities for each of {len(files)} images")
    for row in np.flatnonzero(~((shares >= 0) & (shares <= 1)).all(axis=1)):
        raise _no_share(files[row])
    truth = np.array([place[name] for name in table["truth"]], dtype=np.int64)
    return Predictions(files, truth, shares.astype(np.float64), classes)


def _one_by_one(value: list[Any], classes: Sequence[str]) -> list[Prediction]:
    known = set(classes)
    found = [checked_json.typed(Prediction, one, f"predictions[{i}].") for i, one in enumerate(value)]
    if not found:
        raise ValueError("it has no predictions")
    for one in found:
        if one["truth"] not in known or one["probabilities"].keys() != known:
            raise _not_of_classes(one["file"])
        if not all(0 <= share <= 1 for share in one["probabilities"].values()):
            raise _no_share(one["file"])
    return found


def _not_of_classes(file: str) -> ValueError:
    return ValueError(f"a prediction of {checked_json.shown(file)} is not of its classes")


def _no_share(file: str) -> ValueError:
    return ValueError(f"a probability of {checked_json.shown(file)} is not from 0 to 1")
