"""`--mixing auto`, `--generators auto`: what validation images favour, which may be no synthetic images."""

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from classify.config import MixingName
from classify.mixing import UNION, Mixing
from evaluate.experiment.arms import Arm, Run
from evaluate.records.records import MixingChoice, Record
from orchard.images import splits
from orchard.images.images import ImageSet

FOLDS = 5
"""Parts of an arm's real images, at most; each is scored by classifiers that have not seen it."""
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


def parts(run: Run) -> list[Set[str]]:
    """Hashes of the run's own real images in stratified parts: `FOLDS`, or as many as its smallest class has.

    A few held-out images choose no better than chance, so all of them take part.
    """
    contents = {(photo.label, photo.sha256) for photo in run.real}
    own = ImageSet(name=run.title, classes=tuple(run.arm.mixture.real), photos=tuple(run.real))
    smallest = min(Counter(label for label, _ in contents).values())
    return [*splits.folds(own, min(FOLDS, smallest), "validation", run.seeds.subset)]


def choose(run: Run, losses_of: Callable[[Candidate], np.ndarray]) -> Choice:
    """No synthetic images, or the candidate of lowest loss if that is lower by more than one standard error.

    ``losses_of`` gives (N,) negative log-likelihoods in nats of the run's own real images, each by a
    classifier that has not seen it. The error is that of the mean paired difference, as in the
    one-standard-error rule of Breiman et al. 1984: what few images do not tell apart is decided for the
    plainest.
    """
    tried = {candidate: losses_of(candidate) for candidate in candidates(run)}
    none, *others = tried
    gains = {candidate: tried[none] - tried[candidate] for candidate in others}
    best = max(others, key=lambda candidate: float(gains[candidate].mean()))
    errors = {candidate: float(gain.std(ddof=1)) / len(gain) ** 0.5 for candidate, gain in gains.items()}
    taken = best if gains[best].mean() > errors[best] else none
    untried = UNTRIED if run.arm.mixing == "auto" else ("other ways of mixing", *UNTRIED)
    return Choice(
        candidate=taken,
        record={
            "chosen": taken.label,
            "tried": {candidate.label: float(losses.mean()) for candidate, losses in tried.items()},
            "errors": {candidate.label: error for candidate, error in errors.items()},
            "untried": list(untried),
        },
    )
