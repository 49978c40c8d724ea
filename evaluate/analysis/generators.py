"""Generators side by side: what their images bring, how near they are to real ones, what they cost."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from evaluate.analysis.summary import MARGIN, PLAIN, UNION, ArmKey, Row, arm_of, summarise, table_of
from evaluate.generators import GIVEN, NONE
from evaluate.records.records import REAL_PART, Record


class Measured(TypedDict):
    """The images of one generator, as `FIDELITY` of the report keeps them."""

    kind: str
    """Of the arms that it made them for: ratio, shots or fold."""
    shots: int | None
    generator: str
    arm: str
    """One arm that they were measured for."""
    images: int
    share_near_train: float
    """Near copies of training photos, 0 to 1."""
    kid: float | None
    """Against the arm's real images, in the features of our own classifier; None without one."""
    coverage: float | None
    """Likewise, 0 to 1."""
    seconds_per_image: float | None
    """Tuning and sampling over the images made; None where it is not known."""
    seconds_to_train: float | None
    """Tuning alone; None where it is not known, or nothing was tuned."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An arm among those that have the same real images and differ in their generator."""

    row: Row
    """Its ``change`` is against these real images alone, and p is corrected for all arms so compared."""
    measured: Measured | None

    @property
    def arm(self) -> ArmKey:
        """What was compared."""
        return self.row.arm


def compared(
    records: Iterable[Record], measured: Sequence[Measured], margin: float = MARGIN
) -> list[Compared]:
    """The arms of every table in which evaluate has made images, the generators of a mixture together."""
    own = [record for record in records if arm_of(record).kind in (*PLAIN, REAL_PART)]
    tables = {table_of(arm) for record in own if (arm := arm_of(record)).generator not in (NONE, GIVEN)}
    rows = summarise([one for one in own if table_of(arm_of(one)) in tables], margin, same_real)
    known = {(one["kind"], one["shots"], one["generator"]): one for one in measured}
    found = [Compared(row=row, measured=known.get(_origin(row.arm))) for row in rows]
    return sorted(found, key=lambda one: _place(one.arm))


def same_real(arm: ArmKey, found: Collection[ArmKey]) -> ArmKey | None:
    """The arm of the same real images without synthetic ones; `None` for such an arm itself."""
    alone = replace(arm, generator=NONE, mixing=UNION)
    if arm.design == "augment":
        options = [replace(alone, ratio=1.0)]
    else:
        options = [alone, replace(alone, kind=REAL_PART)]
    return next((one for one in options if one in found and arm.generator != NONE), None)


def _origin(arm: ArmKey) -> tuple[str, int | None, str]:
    return table_of(arm)[0], arm.shots, arm.generator


def _place(arm: ArmKey) -> tuple[object, ...]:
    """Mixture after mixture, each with its real part first; low-shot arms share what their shots say."""
    share = arm.ratio if arm.shots is None else 0.0
    return *table_of(arm), arm.shots or 0, arm.total, -share, arm.generator != NONE
