"""Warnings about mixtures that gain on the whole what the worst class pays for."""

from collections.abc import Iterator, Mapping, Sequence

from evaluate.analysis.external_sets import ExternalResult
from evaluate.analysis.labels import label, percent, points, points_between
from evaluate.analysis.parts import Part
from evaluate.analysis.strata import CLASS, Stratum
from evaluate.analysis.summary import Row

SHOWN = 3
"""Warnings that are shown one by one."""
ROUNDING = 1e-9
"""Up to which two shares are the same."""


def warnings(
    rows: Sequence[Row], strata: Sequence[Stratum], elsewhere: Sequence[ExternalResult]
) -> list[str]:
    """A sentence for each arm and set on which the lowest recall falls though the accuracy rises."""
    by_arm = {
        row.arm: {one.kind: one for one in strata if one.arm == row.arm and one.what == CLASS} for row in rows
    }
    scored: list[tuple[str, Row, Mapping[str, Part]]] = [("", row, by_arm[row.arm]) for row in rows]
    scored += [(f"on {one.name}, ", one.row, one.recalls) for one in elsewhere]
    return [f"{where}{said}" for where, row, recalls in scored for said in _of(row, recalls)]


def _of(row: Row, recalls: Mapping[str, Part]) -> Iterator[str]:
    compared = {name: (part, part.points) for name, part in recalls.items() if part.points is not None}
    if row.change is None or row.change.points <= 0 or not compared:
        return
    now = {name: part.accuracy.mean or 0.0 for name, (part, _) in compared.items()}
    before = {name: now[name] - gained / 100 for name, (_, gained) in compared.items()}
    was, worst = (min(shares, key=shares.__getitem__) for shares in (before, now))
    if now[worst] >= before[was] - ROUNDING:
        return
    change = recalls[worst].change
    interval = f", 95% interval {points_between(change)}" if change else ""
    yield (
        f"{label(row.arm)} raises the accuracy by {points(row.change.points)} points, but the worst class "
        f"loses: {was} was lowest with a recall of {percent(before[was])}, now {worst} is with "
        f"{percent(now[worst])} ({points(recalls[worst].points)} points{interval})"
    )
