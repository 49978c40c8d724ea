"""`--mixing auto`: the way and the amount of mixing that validation images favour, which may be none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from classify.config import MixingName
from classify.mixing import UNION, Mixing
from evaluate.records.records import MixingChoice, Record

UNTRIED = ("other amounts", "other real weights", "strong augmentation", "mixup", "cutmix")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way of mixing, and the share of the arm's synthetic images that takes part."""

    mixing: Mixing = UNION
    share: float = 1.0

    @property
    def label(self) -> str:
        """How records and tables call it."""
        if not self.share:
            return "no synthetic images"
        return self.mixing.label if self.share == 1 else f"{self.mixing.label}, {self.share:.0%} of them"


@dataclass(frozen=True, kw_only=True)
class ChosenMixing:
    """What an arm's runs use."""

    candidate: Candidate
    record: MixingChoice | None = None
    """As ``mixing_choice`` of `evaluate.records.records`; None where nothing was chosen."""

    def counts(self, synthetic: Mapping[str, int]) -> dict[str, int]:
        """Of an arm's synthetic images per class, those that take part."""
        return {name: round(self.candidate.share * count) for name, count in synthetic.items()}


def candidates(real_weight: float) -> list[Candidate]:
    """What `choose` tries, the plainest first: of equals the plainer one wins."""
    ways = [Mixing(name=name, real_weight=real_weight) for name in get_args(MixingName)]
    return [Candidate(share=0.0), Candidate(share=0.5), *(Candidate(mixing=way) for way in ways)]


def chosen(record: Record, real_weight: float) -> ChosenMixing | None:
    """The choice that a run's record notes; None where none was made, or of what is not tried any more."""
    noted = record["mixing_choice"]
    known = {candidate.label: candidate for candidate in candidates(real_weight)}
    candidate = known.get(str(noted.get("chosen"))) if noted else None
    return ChosenMixing(candidate=candidate, record=noted) if candidate else None


def choose(real_weight: float, loss_of: Callable[[Candidate], float]) -> ChosenMixing:
    """The candidate of lowest loss: mean negative log-likelihood of validation images, in nats."""
    tried = {candidate: loss_of(candidate) for candidate in candidates(real_weight)}
    best = min(tried, key=lambda candidate: tried[candidate])
    return ChosenMixing(
        candidate=best,
        record={
            "chosen": best.label,
            "tried": {candidate.label: loss for candidate, loss in tried.items()},
            "untried": list(UNTRIED),
        },
    )
