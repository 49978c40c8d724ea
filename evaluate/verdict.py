"""The result in one sentence, and the sentences on what it cannot show."""

from collections.abc import Sequence

from evaluate.significance import ALPHA, fewest_pairs, images_needed, smallest_detectable
from evaluate.statistics import MARGIN, PLAIN, UNION, Change, Row
from evaluate.wording import counted, label, p_value, percent, points, points_between


def verdict(rows: Sequence[Row], margin: float = MARGIN) -> str:
    """The main comparison in one sentence; ``margin`` as the rows were made with.

    It takes the arm with the least real images that still has some (100% synthetic if there is no
    other), without a shot limit where possible, on the most test images, of the first design.
    """
    compared = [row for row in rows if row.change is not None]
    if not compared:
        row = rows[0]
        return (
            f"{label(row.arm)} reached a mean accuracy of {percent(row.weighted['accuracy'].mean)} on "
            f"{row.n_test} test images; without runs of both real images alone and a mixture nothing can be "
            "said about the synthetic ones."
        )
    row = min(compared, key=lambda r: _rank(r, rows[0].arm.design))
    assert row.change is not None
    after = row.weighted["accuracy"].mean or 0.0
    before = after - row.change.points / 100
    interval = f"95% interval {points_between(row.change.shown)}; " if row.change.shown else ""
    return (
        f"{_action(row)} changed mean accuracy by {points(row.change.points)} points ({interval}"
        f"{percent(before)} to {percent(after)}, {counted(row.runs, 'run')}, "
        f"{_tested(row.change, len(compared))}), {_meaning(row.change, margin)}; {_resolution(row.n_test)}."
    )


def _rank(row: Row, design: str) -> tuple[object, ...]:
    arm = row.arm
    main = arm.kind in PLAIN and arm.mixing == UNION
    return not main, arm.shots is not None, -row.n_test, arm.design != design, not arm.ratio, arm.ratio


def _action(row: Row) -> str:
    if row.arm.kind != "fold":
        return _replacing(row)
    action = _replacing(row)
    return f"In cross-validation, {action[0].lower()}{action[1:]}"


def _replacing(row: Row) -> str:
    arm = row.arm
    limit = "" if arm.shots is None else f", at {counted(arm.shots, 'real image')} a class,"
    if arm.kind in PLAIN and arm.mixing == UNION and arm.ratio < 1:
        if arm.design == "augment" or arm.shots is not None:
            return f"Adding {row.n_synthetic} synthetic images to {row.n_real} real ones{limit}"
        if arm.design == "substitute":
            part = "all" if arm.ratio == 0 else f"{round(100 * (1 - arm.ratio))}%"
            return f"Replacing {part} of the real images with synthetic ones{limit}"
    return f"In the design {arm.design}, {label(arm)} instead of real images alone{limit}"


def _tested(change: Change, comparisons: int) -> str:
    corrected = f", Holm-corrected for {comparisons} comparisons" if comparisons > 1 else ""
    return f"McNemar p {p_value(change.p if change.p_holm is None else change.p_holm)}{corrected}"


def _meaning(change: Change, margin: float) -> str:
    within = f"within the margin of {margin:g} points" if change.within_margin else ""
    if change.p_holm is not None and change.p_holm <= ALPHA:
        return "a significant difference" + (f", though {within}" if within else "")
    if within:
        return f"no worse than real images alone {within}"
    low, high = change.interval or (0.0, 0.0)
    if low > 0 or high < 0:
        return f"which is unresolved: 0 lies outside the interval, but p is above {ALPHA:g}"
    return f"which this test set can neither tell from no change nor show to lie within {margin:g} points"


def _resolution(n: int) -> str:
    least = smallest_detectable(n)
    if least.points is None:
        return f"with {n} test images no difference at all can be resolved"
    return f"with {n} test images, differences under {least.points:.1f} points cannot be resolved"


def limits(rows: Sequence[Row], margin: float = MARGIN) -> list[str]:
    """Sentences on what these runs cannot show."""
    lines = [line for n in sorted({row.n_test for row in rows}) for line in _of_size(n)]
    lines += _at_the_ceiling(rows)
    lines.append(_needed(margin))
    if any(row.replicates < 2 for row in rows):
        lines.append("Arms with one seed: chance in training is not measured there.")
    if any(row.n_synthetic and row.arm.shots is None for row in rows):
        lines.append(
            "All runs of a mixture share their synthetic images, or those of one generator a fold; what "
            "another generator, or another draw from it, would change is in no interval."
        )
    lines.append(
        "More seeds narrow the chance in training, not the chance in which images the test set holds; the "
        "Wilson intervals count images, not images times seeds."
    )
    changes = [row.change for row in rows if row.change is not None]
    if any(change.interval for change in changes):
        lines.append(
            "The bootstrap interval is for the mean over seeds, McNemar's p for one vote of the seeds; where "
            "only one of them finds a difference, take it as unresolved. Where the seeds draw different real "
            "images, their vote has seen more of them than any of its classifiers: it can hide what one "
            "classifier loses."
        )
    if any(change.p is not None and change.interval is None for change in changes):
        lines.append(
            "Where no run differs on any image the bootstrap has nothing to draw from; the interval shown "
            "there is Tango's score interval of the votes."
        )
    if sum(change.p is not None for change in changes) > 1:
        lines.append("Each p value is given alone and corrected by Holm's method for all arms compared.")
    return lines


def _of_size(n: int) -> list[str]:
    least = smallest_detectable(n)
    lines = [
        f"{_resolution(n).capitalize()}: exact McNemar needs at least {least.pairs} images on which two "
        f"classifiers differ, all one way (p = {2 * 0.5**least.pairs:.3f})."
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
        "so no arm can be shown to be better there. Arms with fewer real images, cross-validation and other "
        "real sets carry that comparison."
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
