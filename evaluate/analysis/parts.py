"""How an arm does on a part of its test images: one class, where accuracy is recall, or one kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.analysis.intervals import (
    Interval,
    Spread,
    accuracy_interval,
    difference_interval,
    mean_and_spread,
)
from evaluate.analysis.predictions import answers as said_by
from evaluate.analysis.predictions import by_run, tested
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


class Answers:
    """Which test images an arm has right, and real images alone; `real_only` may have no runs."""

    def __init__(self, runs: Sequence[Record], real_only: Sequence[Record]) -> None:
        self.runs, self.files = runs, tested(runs)
        self.by_run, self.rows = by_run(runs, self.files), rows_of(runs, self.files)
        before, after = paired(real_only, runs)
        self.alone = rows_of(before, self.files) if after else None
        self.after = rows_of(after, self.files) if after else None

    def part(self, columns: Sequence[int] | np.ndarray) -> Part:
        """The part with the files at these places, at least one, in their order."""
        answers, of_runs = self.rows.take(columns, axis=1), self.by_run.take(columns, axis=1)
        of_runs = of_runs[np.isfinite(of_runs).any(axis=1)]
        before = points = change = None
        if self.alone is not None and self.after is not None:
            alone = self.alone.take(columns, axis=1)
            differences = self.after.take(columns, axis=1) - alone
            both = np.isfinite(differences).any(axis=0)
            if both.any():
                common = differences[:, both]
                before = float(np.nanmean(alone[:, both], axis=0).mean())
                points = 100 * float(np.nanmean(common, axis=0).mean())
                change = in_points(difference_interval(common))
        return Part(
            images=len(columns),
            accuracy=Spread(
                float(np.nanmean(answers, axis=0).mean()),
                mean_and_spread(np.nanmean(of_runs, axis=1).tolist()).sd,
            ),
            interval=accuracy_interval(answers),
            before=before,
            points=points,
            change=change,
        )

    def recalls(self) -> dict[str, Part]:
        """The part of every class that has test images, in the order of the classes."""
        place = {file: column for column, file in enumerate(self.files)}
        pairs = np.concatenate(
            [
                np.stack([said.truth, [place[file] for file in said.files]], axis=1)
                for said in map(said_by, self.runs)
            ]
        )
        labels, columns = np.unique(pairs, axis=0).T
        ends = np.searchsorted(labels, np.arange(len(self.runs[0]["classes"]) + 1))
        return {
            name: self.part(columns[start:end])
            for name, start, end in zip(self.runs[0]["classes"], ends, ends[1:], strict=False)
            if start < end
        }
