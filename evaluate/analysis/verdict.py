"""The result in one sentence, what it is of and its main caveat; the sentences on what it cannot tell."""

from collections.abc import Sequence
from dataclasses import replace

from evaluate.analysis.external_sets import ExternalResult
from evaluate.analysis.labels import counted, label, maker, p_value, percent, points, points_between
from evaluate.analysis.significance import ALPHA, fewest_pairs, images_needed, smallest_detectable
from evaluate.analysis.summary import MARGIN, PLAIN, UNION, ArmKey, Change, Row
from evaluate.generators import NONE, was_chosen

FEW = 3
"""Seeds below which most of an interval may come from how few they are."""


def verdict(rows: Sequence[Row], margin: float = MARGIN) -> str:
    """The main comparison in one sentence; ``margin`` as the rows were made with."""
    row = main(rows)
    if row is None:
        row = rows[0]
        return (
            f"{label(row.arm)} reached a mean accuracy of {percent(row.weighted['accuracy'].mean)} on "
            f"{row.n_test} test images; without runs of both real images alone and a mixture, with a seed in "
            "common, nothing can be said about the synthetic ones."
        )
    if _none_pays(row):
        return (
            f"None pays: with {row.n_real} real images{_limit(row.arm)} no synthetic ones were chosen "
            f"({maker(row.arm)}), since these real images, each scored by classifiers that had not seen it, "
            "gave none a lower loss by more than its standard error."
        )
    change = _change(row)
    interval = ""
    if change.interval:
        of = " for these two classifiers" if change.one_seed else ""
        interval = f" (95% interval {points_between(change.interval)}{of})"
    return (
        f"{_action(row)} changed mean accuracy by {points(change.points)} points{interval}: "
        f"{_meaning(change, margin)}."
    )


def on_other_sets(
    rows: Sequence[Row], elsewhere: Sequence[ExternalResult], margin: float = MARGIN
) -> list[str]:
    """A sentence for each further real set on which the arm of the verdict was scored."""
    row = main(rows)
    if row is None or _none_pays(row):
        return []
    found = [one for one in elsewhere if one.arm == row.arm and one.row.change is not None]
    return [_there(one, _change(one.row), margin) for one in found]


def _there(found: ExternalResult, change: Change, margin: float) -> str:
    interval = f" ({points_between(change.interval)})" if change.interval else ""
    balanced = ""
    if found.balanced.points is not None:
        balanced = f", balanced accuracy by {points(found.balanced.points)}"
        balanced += f" ({points_between(found.balanced.change)})" if found.balanced.change else ""
    return (
        f"On {found.name}, {counted(change.images, 'image')} of another source, it changed mean accuracy by "
        f"{points(change.points)} points{interval}{balanced}: {_meaning(change, margin)}."
    )


def basis(rows: Sequence[Row]) -> str:
    """What the verdict rests on, and why it is about this arm; empty without a comparison."""
    row = main(rows)
    if row is None or _none_pays(row):
        return ""
    change, compared = _change(row), _compared(rows)
    p = change.p_holm if change.one_seed else change.p_mean_holm
    tested = f"{'McNemar ' if change.one_seed else ''}p {p_value(p)}"
    corrected = f", Holm-corrected for {len(compared)} comparisons" if len(compared) > 1 else ""
    said = (
        f"{percent(change.before)} with real images alone, {percent(change.after)} with this mixture, over "
        f"{counted(change.runs, 'run')} of each on {counted(change.images, 'test image')}; "
        f"{tested}{corrected}."
    )
    if len(compared) > 1:
        said += f" Of {len(compared)} arms compared with real images alone this is {why(row, compared)}."
    return said


def caveat(rows: Sequence[Row], margin: float = MARGIN) -> str:
    """The one thing to keep in mind when reading the verdict; empty without a comparison."""
    row = main(rows)
    if row is None or _none_pays(row):
        return ""
    change = _change(row)
    if change.one_seed:
        return (
            "With one seed per arm, the variation between training runs is unknown: retraining the same arms "
            "may change the difference by more than this, or reverse it. Use --seeds 5."
        )
    if change.replicates < FEW:
        return (
            "Two trainings hardly measure the chance in training, and the interval is wide for that reason "
            "too; --seeds 5 narrows it."
        )
    if not change.within_margin and not _differs(change):
        needed = images_needed(margin / 100)
        if needed is not None and change.images >= needed:
            return "It would take more seeds, or more test images, to tell a change of this size from none."
        return (
            f"{counted(change.images, 'test image')} are few: to find a loss of {margin:g} points in four "
            f"experiments of five takes at least {needed if needed is not None else 'ten thousand'}."
        )
    return (
        "What another generator, or another draw from this one, would change is in no interval."
        if row.arm.shots is None
        else "It holds for these numbers of images alone; the table has the others."
    )


def main(rows: Sequence[Row]) -> Row | None:
    """The arm that the verdict is about; `None` where no arm is compared with real images alone.

    The one with the least real images that still has some (100% synthetic if there is no other), without a
    shot limit where possible, on the most test images, of the first design; by a generator that was chosen
    on validation images if there is one, else by the first.
    """
    compared = _compared(rows)
    return min(compared, key=lambda row: _rank(row, rows[0].arm.design)) if compared else None


def _compared(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.change is not None]


def _change(row: Row) -> Change:
    assert row.change is not None, row
    return row.change


def _rank(row: Row, design: str) -> tuple[object, ...]:
    arm = row.arm
    main = arm.kind in PLAIN and arm.mixing == UNION and arm.generator != NONE
    place = -row.n_test, arm.design != design, not _was_chosen(row), not arm.ratio, arm.ratio
    return not main, arm.shots is not None, *place


def _was_chosen(row: Row) -> bool:
    """Whether the arm's own real images chose its generator."""
    return was_chosen(row.arm.generator)


def _none_pays(row: Row) -> bool:
    """Whether every run of an arm that chooses took no synthetic images."""
    return _was_chosen(row) and not row.n_synthetic


def _limit(arm: ArmKey) -> str:
    """The number of shots, in words between commas."""
    return "" if arm.shots is None else f", at {counted(arm.shots, 'real image')} per class,"


def _action(row: Row) -> str:
    if row.arm.kind != "fold":
        return _replacing(row)
    action = _replacing(row)
    return f"In cross-validation, {action[0].lower()}{action[1:]}"


def _replacing(row: Row) -> str:
    arm = row.arm
    limit = _limit(arm)
    by = f" ({maker(arm)})" if maker(arm) else ""
    if arm.kind in PLAIN and arm.mixing == UNION and arm.ratio < 1:
        if arm.design == "augment" or arm.shots is not None:
            return f"Adding {row.n_synthetic} synthetic images{by} to {row.n_real} real ones{limit}"
        if arm.design == "substitute":
            part = "all" if arm.ratio == 0 else f"{round(100 * (1 - arm.ratio))}%"
            return f"Replacing {part} of the real images with synthetic ones{by}{limit}"
    return f"In the design {arm.design}, {label(arm)} instead of real images alone{limit}"


def why(row: Row, compared: Sequence[Row]) -> str:
    """What sets the verdict's arm apart from the others that were compared."""
    what = "the mixture with the least real images that still has some"
    if not row.arm.ratio:
        what = "the one without a real image, no mixture having been run"
    if _was_chosen(row):
        what += ", by the generator that validation images chose"
    elif any(other.arm != row.arm == replace(other.arm, generator=row.arm.generator) for other in compared):
        what += ", by the first generator"
    if any(other.n_test < row.n_test for other in compared):
        what += ", among those with the most test images"
    return what


def _differs(change: Change) -> bool:
    """Whether a difference is established, all arms considered; of one seed between its classifiers."""
    p = change.p_holm if change.one_seed else change.p_mean_holm
    return p is not None and p <= ALPHA


def _meaning(change: Change, margin: float) -> str:
    within = f"within the margin of {margin:g} points"
    if change.one_seed:
        return "these two classifiers differ" if _differs(change) else "one seed establishes nothing"
    if _differs(change):
        kind = "a gain" if change.points > 0 else "a loss"
        return kind + (f", though {within}" if change.within_margin and change.points < 0 else "")
    if change.within_margin:
        return f"no worse than real images alone, {within}"
    if change.p_mean is not None and change.p_mean <= ALPHA:
        return "not established as a difference once all arms compared are counted"
    return f"neither a difference nor its absence, {within}, is established"


def _resolution(n: int) -> str:
    least = smallest_detectable(n)
    if least.points is None:
        return f"With {n} test images exact McNemar can tell no two classifiers apart"
    return (
        f"With {n} test images exact McNemar tells two classifiers, or two votes, apart from "
        f"{least.points:.1f} points on"
    )


def limits(rows: Sequence[Row], margin: float = MARGIN) -> list[str]:
    """Sentences on what these runs cannot show."""
    lines = [line for n in sorted({row.n_test for row in rows}) for line in _of_size(n)]
    lines += _at_the_ceiling(rows)
    lines.append(_needed(margin))
    if any(row.replicates < 2 for row in rows):
        lines.append(
            "Arms with one seed: the chance in training is in no interval and no p there; they are of these "
            "classifiers alone."
        )
    if any(row.n_synthetic and row.arm.shots is None for row in rows):
        lines.append(
            "All runs of a mixture share their synthetic images, or those of one generator a fold; what "
            "another generator, or another draw from it, would change is in no interval."
        )
    lines.append(
        "More seeds narrow the chance in training, not the chance in which images the test set holds; the "
        "intervals count images, not images times seeds."
    )
    changes = [_change(row) for row in _compared(rows)]
    if any(change.replicates > 1 for change in changes):
        lines.append(
            "The interval of a difference and its p are for the mean over seeds, McNemar's p for one vote of "
            "the seeds against another; a mean can be measured more finely than a vote. Where the seeds draw "
            "different real images, their vote has seen more of them than any of its classifiers: it can "
            "hide what one classifier loses."
        )
    if any(change.replicates == FEW - 1 for change in changes):
        lines.append("Two seeds: Student's t of one degree of freedom makes their intervals wide.")
    if len(changes) > 1:
        lines.append(
            "Each p is given alone and corrected by Holm's method for all arms compared, and so is what is "
            "no worse by the margin; the intervals are each arm's own."
        )
    return lines


def _of_size(n: int) -> list[str]:
    least = smallest_detectable(n)
    lines = [
        f"{_resolution(n)}: that takes at least {least.pairs} images on which they differ, all one way "
        f"(p = {2 * 0.5**least.pairs:.3f})."
    ]
    if least.top is not None:
        lines[0] += (
            f" A classifier that gets {n} of {n} right can be told apart only from one with at most "
            f"{n - least.pairs} right (accuracy {least.top:.3f})."
        )
    if least.likely_points is not None:
        lines.append(
            f"With {n} test images a true loss has to reach {least.likely_points:.1f} points, without a "
            "single image gained, to be found in four experiments of five."
        )
    return lines


def _at_the_ceiling(rows: Sequence[Row]) -> list[str]:
    """Where real images alone leave fewer mistakes than an arm would have to mend."""
    alone = [row for row in rows if row.change is None and row.arm.ratio == 1]
    full = [label(row.arm) for row in alone if _mistakes(row) < fewest_pairs()]
    if not full:
        return []
    return [
        f"{'; '.join(full)}: fewer than {fewest_pairs()} test images are wrong without any synthetic image, "
        "so McNemar's test can find no arm better there. Arms with fewer real images, cross-validation and "
        "other real sets carry that comparison."
    ]


def _mistakes(row: Row) -> float:
    return row.n_test * (1 - (row.weighted["accuracy"].mean or 0.0))


def _needed(margin: float) -> str:
    needed = images_needed(margin / 100)
    if needed is None:
        return f"To find a loss of {margin:g} points takes more than 10,000 test images."
    return (
        f"To find a true loss of {margin:g} points in four experiments of five, without an image gained, "
        f"takes {needed} test images; {fewest_pairs()} of them must turn."
    )
