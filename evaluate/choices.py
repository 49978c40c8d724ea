"""What validation images favoured where the mixing was left to them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluate.answers import Record
from evaluate.statistics import ArmKey, arms


@dataclass(frozen=True, kw_only=True)
class MixingChoice:
    """One choice, made on the first seed of an arm; cross-validation chooses in each fold anew."""

    arm: ArmKey
    fold: int | None
    repeat: int | None
    chosen: str
    tried: Mapping[str, float]
    """Mixing -> mean negative log-likelihood of validation images, nats."""
    untried: Sequence[str]


def choices(records: Iterable[Record]) -> list[MixingChoice]:
    """Every choice once, arm after arm."""
    found: dict[tuple[object, ...], MixingChoice] = {}
    for arm, runs in arms(records).items():
        for run in runs:
            if run.get("mixing_choice"):
                fold, repeat = run.get("fold"), run.get("repeat")
                choice = MixingChoice(arm=arm, fold=fold, repeat=repeat, **run["mixing_choice"])
                found.setdefault((arm, fold, repeat), choice)
    return list(found.values())
