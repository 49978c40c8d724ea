"""What each screen of the synthetic set brings: accuracy with it, and with what it rejected let through."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from evaluate.answers import Record
from evaluate.records import WITHOUT
from evaluate.statistics import PLAIN, ArmKey, Change, arms, change


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One screen in one mixture."""

    arm: ArmKey
    """The mixture with all screens."""
    screen: str
    change: Change
    """What the screen brought: from without it (`before`) to all screens, over the seeds that both have."""


def ablations(records: Iterable[Record]) -> list[Ablation]:
    """Every screen that was left out, mixture after mixture; p is not corrected for their number."""
    found = arms(records)
    lines = []
    for arm, runs in found.items():
        with_all = found.get(replace(arm, kind=PLAIN[0]), [])
        brought = change(runs, with_all) if arm.kind.startswith(WITHOUT) else None
        if brought is not None:
            lines.append(
                Ablation(
                    arm=replace(arm, kind=PLAIN[0]),
                    screen=arm.kind.removeprefix(WITHOUT),
                    change=brought,
                )
            )
    return lines
