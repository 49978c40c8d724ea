"""What the runs of a sweep say together: one row an arm, and its change against real images alone."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from evaluate import generators, metrics
from evaluate.analysis.intervals import (
    Interval,
    Spread,
    accuracy_interval,
    difference_interval,
    mean_and_spread,
    p_below,
    p_of_difference,
)
from evaluate.analysis.predictions import answers, correctness, replicate, tested, vote
from evaluate.analysis.significance import ALPHA, holm, mcnemar_exact
from evaluate.generators import NONE
from evaluate.records.records import Record, complete

Averaged = Literal["precision", "recall", "f1", "roc_auc"]
AVERAGED: tuple[Averaged, ...] = get_args(Averaged)
METRICS: tuple[Literal["accuracy", Averaged], ...] = ("accuracy", *AVERAGED)
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
    generator: str
    """What made the synthetic images, as in the records; `none` without any."""
    ratio: float
    """Share of real images, 0 to 1."""
    shots: int | None
    """Real images per class in a low-shot arm."""
    total: int = 0
    """Images in a mixture where it is not the number of real ones; 0 where it is."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """An arm against another, such as real images alone, over the seeds and images that both have."""

    points: float
    """Mean accuracy minus the other's, percentage points."""
    before: float
    """Mean accuracy of the other arm over these runs, 0 to 1."""
    after: float
    """Mean accuracy of this one."""
    runs: int
    """Runs that have a partner in the other arm; every figure here is of these alone."""
    replicates: int
    """Trainings of every image once among them; of one, all that follows is of two classifiers alone."""
    images: int
    """Test images."""
    interval: Interval | None
    """95% interval of the mean difference, points (`difference_interval`); `None` without common images."""
    p_mean: float | None
    """Two-sided p of the mean difference, by the same interval."""
    p_worse: float | None
    """One-sided p of "worse by the margin or more", by the same interval."""
    p: float | None
    """Exact McNemar p of the votes over seeds."""
    p_mean_holm: float | None = None
    """These three again, each corrected for the number of arms compared."""
    p_worse_holm: float | None = None
    p_holm: float | None = None
    within_margin: bool | None = None
    """Whether it is established that this arm is not worse by the margin or more; `None` of one seed."""

    @property
    def one_seed(self) -> bool:
        """Whether chance in training is in no interval and no p."""
        return self.replicates < 2


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
    """95% interval of the mean accuracy (`accuracy_interval`)."""
    change: Change | None
    """Against real images alone; `None` for these, and where they were not run."""


def arm_of(record: Record) -> ArmKey:
    """The arm of a run."""
    whole = complete(record)
    return ArmKey(
        design=whole["design"],
        kind=whole["arm"],
        mixing=whole["mixing"],
        generator=whole["generator"],
        ratio=whole["ratio"],
        shots=whole["shots"],
        total=whole["total"],
    )


def table_of(arm: ArmKey) -> tuple[str, str]:
    """What the arms of one table have in common: `ratio` (and controls), `shots`, `fold`; the design."""
    return arm.kind if arm.kind in PLAIN else PLAIN[0], arm.design


def arms(records: Iterable[Record]) -> dict[ArmKey, list[Record]]:
    """Runs by arm: designs and kinds as they appear, shots, mixing, generators, falling ratio."""
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
            a.ratio < 1 and generators.place(a.generator),
            -a.ratio,
        ),
    )
    return {arm: found[arm] for arm in order}


def baseline(arm: ArmKey, found: Collection[ArmKey]) -> ArmKey | None:
    """The arm of real images alone that ``arm`` is compared with; `None` for such an arm itself."""
    kind, _ = table_of(arm)
    real = replace(arm, kind=kind, ratio=1.0, mixing=UNION, generator=NONE)
    # A total that the real images do not reach has none of its own.
    return next((one for one in (real, replace(real, total=0)) if one in found and real != arm), None)


def summarise(
    records: Iterable[Record],
    margin: float = MARGIN,
    against: Callable[[ArmKey, Collection[ArmKey]], ArmKey | None] = baseline,
) -> list[Row]:
    """One row an arm, in the order of `arms`; ``margin`` in percentage points.

    ``against`` says which of all arms one is compared with, if any.

    Intervals count images, not images x seeds: the seeds see the same images, so more seeds say nothing more
    about other images. McNemar's p compares the arms' votes over seeds (`predictions.vote`), since a p from
    one seed would depend on which seed comes first.
    """
    found = arms(records)
    pairs = [(arm, against(arm, found)) for arm in found]
    return _corrected([_row(arm, found[arm], found[real] if real else None, margin) for arm, real in pairs])


def _row(arm: ArmKey, runs: Sequence[Record], real_only: Sequence[Record] | None, margin: float) -> Row:
    files = tested(runs)
    said = [(one.truth, one.probabilities) for one in map(answers, runs)]
    return Row(
        arm=arm,
        runs=len(runs),
        replicates=len({replicate(run) for run in runs}),
        n_real=round(np.mean([run["n_real"] for run in runs])),
        n_synthetic=round(np.mean([run["n_synthetic"] for run in runs])),
        n_test=len(files),
        weighted={name: mean_and_spread(run[name] for run in runs) for name in METRICS},
        macro={name: mean_and_spread(run["macro"][name] for run in runs) for name in AVERAGED},
        nll=mean_and_spread(metrics.negative_log_likelihood(*one) for one in said),
        ece=mean_and_spread(metrics.expected_calibration_error(*one) for one in said),
        interval=accuracy_interval(rows_of(runs, files)),
        change=change(real_only, runs, margin) if real_only else None,
    )


def change(before: Sequence[Record], runs: Sequence[Record], margin: float = MARGIN) -> Change | None:
    """From the arm ``before`` to ``runs``, over the seeds and folds that both have; None without any."""
    a, b = paired(before, runs)
    if not b:
        return None
    vote_a, vote_b = vote(a), vote(b)
    files = sorted(vote_a.keys() & vote_b.keys())
    differences = rows_of(b, files) - rows_of(a, files)
    votes = [[of_side[file] for file in files] for of_side in (vote_a, vote_b)]
    of_a, of_b = (float(np.mean([run["accuracy"] for run in side])) for side in (a, b))
    return Change(
        points=100 * (of_b - of_a),
        before=of_a,
        after=of_b,
        runs=len(b),
        replicates=len(differences),
        images=len(files),
        interval=in_points(difference_interval(differences)) if files else None,
        p_mean=p_of_difference(differences) if files else None,
        p_worse=p_below(differences, -margin / 100) if files else None,
        p=mcnemar_exact(*votes) if files else None,
    )


def paired(before: Sequence[Record], runs: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The runs of either arm that have a partner of the same seeds and fold in the other, in one order."""
    partners = {_pairing(run): run for run in before}
    found = [run for run in runs if _pairing(run) in partners]
    return [partners[_pairing(run)] for run in found], found


def _pairing(run: Record) -> tuple[object, ...]:
    return *replicate(run), complete(run)["fold"]


def rows_of(runs: Sequence[Record], files: Sequence[str]) -> np.ndarray:
    """(S, N) shares of right answers, one row a replicate; NaN where it did not test a file."""
    return np.stack([*correctness(runs, files).values()])


def in_points(interval: Interval) -> Interval:
    """Shares as percentage points."""
    return 100 * interval[0], 100 * interval[1]


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with what takes all arms to say.

    Holm's correction, of each question alone: it holds whatever the arms have in common (here test images,
    seeds and the runs of real images alone), and finds all that Bonferroni's does and more.
    """
    columns = [
        holm([getattr(row.change, name) if row.change else None for row in rows])
        for name in ("p_mean", "p_worse", "p")
    ]
    return [_judged(row, *values) for row, *values in zip(rows, *columns, strict=True)]


def _judged(row: Row, p_mean: float | None, p_worse: float | None, p: float | None) -> Row:
    if row.change is None:
        return row
    # One-sided at half the level, so that it agrees with the lower end of a 95% interval.
    within = None if p_worse is None or row.change.one_seed else p_worse <= ALPHA / 2
    found = replace(row.change, p_mean_holm=p_mean, p_worse_holm=p_worse, p_holm=p, within_margin=within)
    return replace(row, change=found)
