"""Further real sets: the same comparisons as on the test set, and the recall of each class besides.

Their classes may be as uneven as shelves are, so accuracy says little of the rare ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.analysis.intervals import mean_interval
from evaluate.analysis.labels import counted, label, p_value, points, points_between, spread
from evaluate.analysis.parts import Answers, Part
from evaluate.analysis.predictions import answers
from evaluate.analysis.summary import MARGIN, ArmKey, Row, arms, baseline, summarise
from evaluate.metrics import score
from evaluate.records.records import Record


@dataclass(frozen=True, kw_only=True)
class ExternalResult:
    """One arm on a further real set, on which nothing was chosen."""

    name: str
    """The set's name."""
    row: Row
    """As of the test set; p is corrected for the arms compared on this set."""
    balanced: Part
    """The mean over classes."""
    recalls: Mapping[str, Part]
    """Those of the classes that have images there."""

    @property
    def arm(self) -> ArmKey:
        """What was scored."""
        return self.row.arm


def external_results(records: Iterable[Record], margin: float = MARGIN) -> list[ExternalResult]:
    """Set after set, every arm that has runs scored on it; ``margin`` in percentage points."""
    scored = [(name, record) for record in records for name in record.get("external") or {}]
    return [
        found
        for name in dict.fromkeys(name for name, _ in scored)
        for found in _on_one(
            [_there(record, name) for other, record in scored if other == name], name, margin
        )
    ]


def _there(record: Record, name: str) -> Record:
    """The record as if the further set were its test set."""
    found: Record = {**record, "predictions": record["external"][name]["predictions"]}
    said = answers(found)
    truth = [said.classes[place] for place in said.truth]
    return {**found, **score(truth, said.probabilities, record["classes"]), "predictions": said}


def _on_one(records: Sequence[Record], name: str, margin: float) -> list[ExternalResult]:
    found = []
    by_arm = arms(records)
    for row in summarise(records, margin):
        alone = baseline(row.arm, by_arm)
        of_classes = Answers(by_arm[row.arm], by_arm[alone] if alone else []).recalls()
        found.append(ExternalResult(name=name, row=row, balanced=_mean(row, of_classes), recalls=of_classes))
    return found


def _mean(row: Row, recalls: Mapping[str, Part]) -> Part:
    """The mean over classes, no two of which share an image."""
    parts = list(recalls.values())
    points = [part.points for part in parts if part.points is not None]
    changes = [part.change for part in parts if part.change is not None]
    compared = len(points) == len(parts)
    return Part(
        images=row.n_test,
        accuracy=row.macro["recall"],
        interval=mean_interval(
            [part.accuracy.mean or 0.0 for part in parts], [part.interval for part in parts]
        ),
        before=float(np.mean([part.before for part in parts])) if compared else None,
        points=float(np.mean(points)) if compared else None,
        change=mean_interval(points, changes) if compared and len(changes) == len(parts) else None,
    )


def columns(found: ExternalResult) -> dict[str, object]:
    """The balanced accuracy and the recalls as columns of a table: shares from 0 to 1, changes in points."""
    recalls = {f"recall_{of_class}": part for of_class, part in found.recalls.items()}
    values: dict[str, object] = {}
    for name, part in {"balanced": found.balanced, **recalls}.items():
        low, high = part.change or (None, None)
        values |= {f"{name}_mean": part.accuracy.mean, f"{name}_sd": part.accuracy.sd}
        values |= {f"{name}_low": part.interval[0], f"{name}_high": part.interval[1]}
        values |= {f"{name}_change_points": part.points}
        values |= {f"{name}_change_low": low, f"{name}_change_high": high}
    return values


def line(found: ExternalResult) -> str:
    """An arm on the further set, for the terminal."""
    row, balanced = found.row, found.balanced
    said = f"on {found.name}, {label(row.arm)}: accuracy {spread(row.weighted['accuracy'])}"
    said += f", balanced {spread(balanced.accuracy)}"
    if row.change is None:
        return f"{said}, {counted(row.n_test, 'image')}"
    interval = f" ({points_between(row.change.interval)})" if row.change.interval else ""
    p = f", McNemar p {p_value(row.change.p)}" if row.change.p is not None else ""
    beside = f", balanced {points(balanced.points)}"
    beside += f" ({points_between(balanced.change)})" if balanced.change else ""
    return f"{said}; {points(row.change.points)} points{interval}{p}{beside}"
