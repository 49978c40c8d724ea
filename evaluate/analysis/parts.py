"""How an arm does on a part of its test images: one class, where accuracy is recall, or one kind."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from evaluate.analysis.intervals import (
    Interval,
    Spread,
    accuracy_interval,
    difference_interval,
    mean_and_spread,
)
from evaluate.analysis.predictions import right
from evaluate.analysis.summary import in_points, paired, rows_of
from evaluate.records.records import Record


@dataclass(frozen=True, kw_only=True)
class Part:
    """One arm on a part of its test images."""

    images: int
    accuracy: Spread
    """Mean over images and deviation over runs, 0 to 1; of a class it is the recall."""
    interval: Interval
    """95% interval of the mean (`accuracy_interval`)."""
    before: float | None
    """Accuracy of real images alone, over the runs that both have; `None` for these, and without any."""
    points: float | None
    """Against them, percentage points."""
    change: Interval | None
    """95% interval of that difference (`difference_interval`); `None` without one."""

    @classmethod
    def of(cls, runs: Sequence[Record], real_only: Sequence[Record], files: Collection[str]) -> Self:
        """The part with ``files``, at least one of which was tested; ``real_only`` may have no runs."""
        tested = [known for run in runs if (known := _tested(run, files))]
        names = sorted({file for known in tested for file in known})
        answers = rows_of(runs, names)
        before, after = paired(real_only, runs)
        alone = rows_of(before, names) if after else np.empty((0, 0))
        differences = rows_of(after, names) - alone if after else alone
        both = np.isfinite(differences).any(axis=0)
        common = differences[:, both]
        return cls(
            images=len(names),
            accuracy=Spread(
                float(np.nanmean(answers, axis=0).mean()),
                mean_and_spread(float(np.mean([*known.values()])) for known in tested).sd,
            ),
            interval=accuracy_interval(answers),
            before=float(np.nanmean(alone[:, both], axis=0).mean()) if common.size else None,
            points=100 * float(np.nanmean(common, axis=0).mean()) if common.size else None,
            change=in_points(difference_interval(common)) if common.size else None,
        )


def _tested(run: Record, files: Collection[str]) -> dict[str, bool]:
    return {one["file"]: right(one) for one in run["predictions"] if one["file"] in files}


def recalls(runs: Sequence[Record], real_only: Sequence[Record]) -> dict[str, Part]:
    """The part of every class that has test images, in the order of the classes."""
    files: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for prediction in run["predictions"]:
            files[prediction["truth"]].add(prediction["file"])
    return {name: Part.of(runs, real_only, files[name]) for name in runs[0]["classes"] if name in files}
