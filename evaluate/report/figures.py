"""The curves of the report page, each an SVG data URI."""

from collections.abc import Mapping, Sequence

import numpy as np

from evaluate.analysis.exchange_rate import Exchange, Fit
from evaluate.analysis.labels import label, number
from evaluate.analysis.student_report import Reference
from evaluate.analysis.summary import Row
from evaluate.report.svg import INK, LIGHT, SMALL, WIDE, Canvas

STUDENT = "student report"


def differences(rows: Sequence[Row], lead: Row, margin: float) -> str:
    """Changes against real images alone with their intervals, points; ``lead`` stands out.

    Two upright lines mark no change and, dotted, a loss of ``margin`` points.
    """
    changes = [row.change for row in rows if row.change is not None]
    assert len(changes) == len(rows), rows
    with Canvas((WIDE[0], 0.9 + 0.3 * len(rows))) as canvas:
        canvas.forest(
            [label(row.arm) for row in rows],
            [change.points for change in changes],
            [change.interval for change in changes],
            [0 if row is lead else 7 for row in rows],
        )
        canvas.axes.axvline(0, color=INK, lw=1)
        canvas.axes.axvline(-margin, color=INK, lw=1, ls=":")
        canvas.axes.set_xlabel(f"points of accuracy (dotted: a loss of {margin:g})")
        return canvas.svg(legend=False)


def ratio_curve(
    rows: Sequence[Row],
    runs: Sequence[tuple[float, float]],
    others: Mapping[str, Sequence[Row]],
    reference: Reference | None,
) -> str:
    """Accuracy (0 to 1) over the share of real images.

    ``rows`` are the mixtures of one design, ``runs`` (ratio, accuracy) of every run of these. The mean is a
    line, its interval a band; ``others`` are further lines. The reference's points are diamonds, and the axis
    is not theirs.
    """
    with Canvas() as canvas:
        x = [row.arm.ratio for row in rows]
        low, high = zip(*(row.interval for row in rows), strict=True)
        canvas.band(0, x, low, high, "95% interval")
        canvas.series(0, x, [row.weighted["accuracy"].mean for row in rows], "mean")
        canvas.axes.plot(
            *zip(*runs, strict=True), "o", color=LIGHT[0], ms=4, mew=0, alpha=0.6, label="one run"
        )
        for i, (name, beside) in enumerate(others.items(), start=2):
            places = [row.arm.ratio for row in beside]
            canvas.series(i, places, [row.weighted["accuracy"].mean for row in beside], name)
        _ratio_axis(canvas, [*x, *(row.arm.ratio for beside in others.values() for row in beside)])
        canvas.share_axis("accuracy")
        _quoted(canvas, reference, "accuracy")
        return canvas.svg()


def metric_curve(rows: Sequence[Row], metric: str, name: str, reference: Reference | None) -> str:
    """Another weighted average over the share of real images: mean, and one standard deviation as a band."""
    with Canvas(SMALL) as canvas:
        x = [row.arm.ratio for row in rows]
        spreads = [row.weighted[metric] for row in rows]
        means = np.array([spread.mean for spread in spreads], dtype=float)
        deviations = np.array([spread.sd or 0.0 for spread in spreads])
        if deviations.any():
            low, high = means - deviations, np.minimum(means + deviations, 1.0)
            canvas.band(0, x, low.tolist(), high.tolist(), "± sd over runs")
        canvas.series(0, x, means.tolist(), "mean")
        _ratio_axis(canvas, x)
        canvas.share_axis(name)
        _quoted(canvas, reference, metric)
        return canvas.svg()


def shots_curve(lines: Mapping[str, Sequence[Row]]) -> str:
    """Mean accuracy over real images per class (doubling): real ones alone, and each way of mixing."""
    with Canvas() as canvas:
        for i, (name, line) in enumerate(lines.items()):
            x = [row.arm.shots or 0 for row in line]
            canvas.series(i, x, [row.weighted["accuracy"].mean for row in line], name)
            canvas.bars(i, x, *zip(*(row.interval for row in line), strict=True))
        shots = {row.arm.shots or 0 for line in lines.values() for row in line}
        canvas.log_axis(sorted(shots), "real images per class")
        canvas.share_axis("accuracy")
        return canvas.svg()


def recall_chart(ratios: Sequence[float], recalls: Mapping[str, Sequence[float | None]]) -> str:
    """Recall (0 to 1) of each class over the share of real images; an undefined one leaves a gap."""
    with Canvas() as canvas:
        for i, (name, values) in enumerate(recalls.items()):
            canvas.series(i, ratios, values, name)
        _ratio_axis(canvas, ratios)
        canvas.share_axis("recall")
        return canvas.svg()


def exchange_curve(found: Exchange) -> str:
    """Accuracy over real images and converted synthetic ones, with the law drawn through."""
    with Canvas() as canvas:
        kinds: dict[str, list[tuple[float, float]]] = {"real alone": [], "mixed": [], "synthetic alone": []}
        for point in found.points:
            name = "real alone" if not point.n_synthetic else "mixed" if point.n_real else "synthetic alone"
            kinds[name].append((point.n_real + point.n_synthetic / found.rate, point.accuracy))
        for i, (name, places) in enumerate(kinds.items()):
            if places:
                x, y = zip(*places, strict=True)
                canvas.series(i, x, y, name, line=False)
        everything = [x for places in kinds.values() for x, _ in places]
        along = np.geomspace(min(everything), max(everything), 60)
        law = Fit(scale=found.scale, exponent=found.exponent, worth=1 / found.rate)
        canvas.axes.plot(along, law.accuracy(along, np.zeros(60)), color=LIGHT[7], lw=1.4, label="power law")
        ticks = [2**k for k in range(20) if min(everything) <= 2**k <= max(everything)]
        canvas.log_axis(ticks, f"real images + synthetic images / {number(found.rate)}")
        canvas.share_axis("accuracy")
        return canvas.svg()


def _quoted(canvas: Canvas, reference: Reference | None, metric: str) -> None:
    if reference:
        canvas.beside(1, [(ratio, value[metric]) for ratio, value in reference.items()], STUDENT)


def _ratio_axis(canvas: Canvas, ratios: Sequence[float]) -> None:
    ticks = sorted(set(ratios), reverse=True)
    canvas.axes.set_xticks(ticks, [f"{round(100 * ratio)}%" for ratio in ticks])
    canvas.axes.set_xlim(max(ticks) + 0.05, min(ticks) - 0.05)
    canvas.axes.set_xlabel("share of real images in training")
