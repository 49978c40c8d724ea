"""`--mixing auto`, `--generators auto`: what validation images favour, which may be no synthetic images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import get_args

from classify.config import MixingName
from classify.mixing import UNION, Mixing
from evaluate.experiment.arms import Arm, Run
from evaluate.records.records import MixingChoice, Record

UNTRIED = ("other amounts", "other real weights", "strong augmentation", "mixup", "cutmix")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A generator, a way of mixing, and the share of the arm's synthetic images that takes part."""

    generator: str = ""
    """Empty where it is not to be chosen."""
    mixing: Mixing = UNION
    share: float = 1.0

    @property
    def label(self) -> str:
        """How records and tables call it."""
        if not self.share:
            return "no synthetic images"
        parts = [self.generator] if self.generator else []
        parts += [self.mixing.label] if self.mixing != UNION or not parts else []
        parts += [f"{self.share:.0%} of them"] if self.share < 1 else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What an arm's runs use."""

    candidate: Candidate
    record: MixingChoice | None = None
    """As ``mixing_choice`` of `evaluate.records.records`; None where nothing was chosen."""

    def counts(self, synthetic: Mapping[str, int]) -> dict[str, int]:
        """Of an arm's synthetic images per class, those that take part."""
        return {name: round(self.candidate.share * count) for name, count in synthetic.items()}

    def made(self, run: Run) -> Run:
        """The run with the source of its images."""
        return replace(run, source=run.candidates.get(self.candidate.generator, run.source))


def fixed(arm: Arm) -> Candidate:
    """What an arm has that chooses nothing."""
    assert arm.mixing != "auto", arm
    return Candidate(mixing=Mixing(name=arm.mixing, real_weight=arm.real_weight))


def candidates(run: Run) -> list[Candidate]:
    """What is tried for a run that chooses, the plainest first: of equals the plainer one wins.

    Where generator and mixing are both to be chosen, each of one is tried with each of the other.
    """
    if run.arm.mixing == "auto":
        ways = [Mixing(name=name, real_weight=run.arm.real_weight) for name in get_args(MixingName)]
        mixed = [Candidate(share=0.5), *(Candidate(mixing=way) for way in ways)]
    else:
        mixed = [fixed(run.arm)]
    generators = [*run.candidates] or [""]
    return [Candidate(share=0.0), *(replace(one, generator=by) for by in generators for one in mixed)]


def chosen(record: Record, run: Run) -> Choice | None:
    """The choice that a run's record notes; None where none was made, or of what is not tried any more."""
    noted = record["mixing_choice"]
    known = {candidate.label: candidate for candidate in candidates(run)}
    candidate = known.get(str(noted.get("chosen"))) if noted else None
    return Choice(candidate=candidate, record=noted) if candidate else None


def choose(run: Run, loss_of: Callable[[Candidate], float]) -> Choice:
    """The candidate of lowest loss: mean negative log-likelihood of validation images, in nats."""
    tried = {candidate: loss_of(candidate) for candidate in candidates(run)}
    best = min(tried, key=lambda candidate: tried[candidate])
    untried = UNTRIED if run.arm.mixing == "auto" else ("other ways of mixing", *UNTRIED)
    return Choice(
        candidate=best,
        record={
            "chosen": best.label,
            "tried": {candidate.label: loss for candidate, loss in tried.items()},
            "untried": list(untried),
        },
    )
