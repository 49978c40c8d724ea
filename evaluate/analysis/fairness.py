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
    before, now = {}, {}
    for name, part in recalls.items():
        if part.before is not None and part.points is not None:
            before[name], now[name] = part.before, part.before + part.points / 100
    if row.change is None or row.change.points <= 0 or not now:
        return
    was, worst = (min(shares, key=shares.__getitem__) for shares in (before, now))
    if now[worst] >= before[was] - ROUNDING:
        return
    low, high = recalls[worst].change or (-100.0, 100.0)
    chance = ", which chance alone may do" if low <= 0 <= high else ""
    yield (
        f"{label(row.arm)} raises the accuracy by {points(row.change.points)} points, but the lowest recall "
        f"falls: {was} had it with {percent(before[was])}, now {worst} with {percent(now[worst])} "
        f"({points(recalls[worst].points)} points, 95% interval {points_between((low, high))}){chance}"
    )
