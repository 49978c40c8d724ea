"""What the runs of a sweep say together: one row an arm, and its change against real images alone."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluate import calibration
from evaluate.answers import Record, correctness, probabilities, replicate, tested, vote
from evaluate.intervals import (
    Interval,
    Spread,
    bootstrap_difference,
    mean_and_spread,
    paired_difference,
    wilson,
)
from evaluate.records import complete
from evaluate.significance import holm, mcnemar_exact

AVERAGED = ("precision", "recall", "f1", "roc_auc")
METRICS = ("accuracy", *AVERAGED)
PLAIN = ("ratio", "shots", "fold")
"""Kinds that compare mixtures among themselves; all others are controls beside the mixtures."""
UNION = "union"
MARGIN = 2.0
"""Percentage points of accuracy that count as no loss, unless stated otherwise."""


@dataclass(frozen=True, kw_only=True)
class ArmKey:
    """What all runs of one arm have in common; seeds, folds and repeats are its runs."""

    design: str
    kind: str
    """`ratio` (mixtures), `shots` (low-shot), `fold` (cross-validation), or the name of a control."""
    mixing: str
    """How real and synthetic images are brought together."""
    ratio: float
    """Share of real images, 0 to 1."""
    shots: int | None
    """Real images a class in a low-shot arm."""
    total: int = 0
    """Images in a mixture where it is not the number of real ones; 0 where it is."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """An arm against another, such as real images alone, over the seeds and images that both have."""

    points: float
    """Mean accuracy minus the other's, percentage points."""
    interval: Interval | None
    """95% bootstrap interval over seeds and images, points; `None` where no run differs on any image."""
    vote_interval: Interval | None
    """95% score interval (Tango) of the same difference between the votes over seeds, points."""
    p: float | None
    """Exact McNemar p of the votes over seeds."""
    p_holm: float | None = None
    """The same, corrected for the number of arms compared."""
    within_margin: bool | None = None
    """Whether both intervals lie above minus the margin: not worse by more than that."""

    @property
    def shown(self) -> Interval | None:
        """The interval to show: the bootstrap's, or the votes' where the bootstrap sees no variation."""
        return self.interval or self.vote_interval


@dataclass(frozen=True, kw_only=True)
class Row:
    """All runs of one arm."""

    arm: ArmKey
    runs: int
    replicates: int
    """Trainings of every image once: the folds of a repeat are one."""
    n_real: int
    """Real training images, the rounded mean over runs."""
    n_synthetic: int
    n_test: int
    """Distinct test images over all runs."""
    weighted: Mapping[str, Spread]
    """Accuracy and the averages weighted by support."""
    macro: Mapping[str, Spread]
    """The same averages as plain means over classes; no accuracy."""
    nll: Spread
    """Negative log-likelihood of the truth, nats."""
    ece: Spread
    """Expected calibration error, 0 to 1."""
    interval: Interval
    """Wilson 95% interval of the mean accuracy."""
    change: Change | None
    """`None` for real images alone, and where they were not run."""


def arm_of(record: Record) -> ArmKey:
    """The arm of a run."""
    whole = complete(record)
    return ArmKey(
        design=whole["design"],
        kind=whole["arm"],
        mixing=whole["mixing"],
        ratio=whole["ratio"],
        shots=whole["shots"],
        total=whole["total"],
    )


def table_of(arm: ArmKey) -> tuple[str, str]:
    """What the arms of one table have in common: `ratio` (and controls), `shots`, `fold`; the design."""
    return arm.kind if arm.kind in PLAIN else PLAIN[0], arm.design


def arms(records: Iterable[Record]) -> dict[ArmKey, list[Record]]:
    """Runs by arm: designs and kinds in the order they appear, then shots, mixing, and falling ratio."""
    found: dict[ArmKey, list[Record]] = defaultdict(list)
    for record in records:
        found[arm_of(record)].append(record)
    designs, kinds = ([getattr(arm, name) for arm in found] for name in ("design", "kind"))
    order = sorted(
        found,
        key=lambda a: (
            designs.index(a.design),
            a.kind not in PLAIN,
            kinds.index(a.kind),
            a.shots or 0,
            a.mixing != UNION,
            a.mixing,
            a.total,
            -a.ratio,
        ),
    )
    return {arm: found[arm] for arm in order}


def summarise(records: Iterable[Record], margin: float = MARGIN) -> list[Row]:
    """One row an arm, in the order of `arms`; ``margin`` in percentage points.

    The Wilson interval takes the mean accuracy over runs as a share of the n distinct test images.
    Its n is images, not images x seeds: the seeds see the same images, so more seeds say nothing
    more about other images. McNemar's p compares the arms' votes over seeds (`answers.vote`), since a
    p from one seed would depend on which seed comes first.
    """
    found = arms(records)
    pairs = [(arm, baseline(arm, found)) for arm in found]
    rows = [_row(arm, found[arm], found[real] if real else None) for arm, real in pairs]
    corrected = holm([row.change.p if row.change else None for row in rows])
    return [_judged(row, p, margin) for row, p in zip(rows, corrected, strict=True)]


def baseline(arm: ArmKey, found: Collection[ArmKey]) -> ArmKey | None:
    """The arm of real images alone that ``arm`` is compared with; `None` for such an arm itself."""
    kind, _ = table_of(arm)
    real = replace(arm, kind=kind, ratio=1.0, mixing=UNION)
    # A total that the real images do not reach has none of its own.
    return next((one for one in (real, replace(real, total=0)) if one in found and real != arm), None)


def _row(arm: ArmKey, runs: Sequence[Record], real_only: Sequence[Record] | None) -> Row:
    n_test = len(tested(runs))
    accuracy = float(np.mean([run["accuracy"] for run in runs]))
    answers = [probabilities(run) for run in runs]
    return Row(
        arm=arm,
        runs=len(runs),
        replicates=len({replicate(run) for run in runs}),
        n_real=round(np.mean([run["n_real"] for run in runs])),
        n_synthetic=round(np.mean([run["n_synthetic"] for run in runs])),
        n_test=n_test,
        weighted={name: mean_and_spread(run[name] for run in runs) for name in METRICS},
        macro={name: mean_and_spread(run["macro"][name] for run in runs) for name in AVERAGED},
        nll=mean_and_spread(calibration.negative_log_likelihood(*answer) for answer in answers),
        ece=mean_and_spread(calibration.expected_calibration_error(*answer) for answer in answers),
        interval=wilson(accuracy * n_test, n_test),
        change=change(real_only, runs) if real_only else None,
    )


def change(before: Sequence[Record], runs: Sequence[Record]) -> Change | None:
    """From the arm ``before`` to ``runs``, over the seeds and folds that both have; None without any."""
    partners = {_pairing(run): run for run in before}
    b = [run for run in runs if _pairing(run) in partners]
    if not b:
        return None
    a = [partners[_pairing(run)] for run in b]
    points = 100 * float(np.mean([run["accuracy"] for run in b]) - np.mean([run["accuracy"] for run in a]))
    vote_a, vote_b = vote(a), vote(b)
    files = sorted(vote_a.keys() & vote_b.keys())
    if not files:
        return Change(points=points, interval=None, vote_interval=None, p=None)
    right_a, right_b = (np.array([votes[file] for file in files]) for votes in (vote_a, vote_b))
    of_votes = paired_difference(int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum()), len(files))
    of_means = bootstrap_difference(*(_rows(side, files) for side in (a, b)))
    return Change(
        points=points,
        interval=_in_points(of_means) if of_means else None,
        vote_interval=_in_points(of_votes),
        p=mcnemar_exact(right_a.tolist(), right_b.tolist()),
    )


def _pairing(run: Record) -> tuple[object, ...]:
    return *replicate(run), complete(run)["fold"]


def _rows(runs: Sequence[Record], files: Sequence[str]) -> np.ndarray:
    """(S, N), one row a replicate."""
    return np.stack([*correctness(runs, files).values()])


def _in_points(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1]


def _judged(row: Row, p_holm: float | None, margin: float) -> Row:
    """The row with what takes all arms, or the margin, to say."""
    if row.change is None or row.change.vote_interval is None:
        return row
    lows = [low for low, _ in filter(None, (row.change.interval, row.change.vote_interval))]
    return replace(row, change=replace(row.change, p_holm=p_holm, within_margin=min(lows) > -margin))
