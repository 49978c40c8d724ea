"""What an arm's own real images favour, which may be no synthetic images: of all that `auto` tries."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from classify.config import MixingName
from classify.mixing import UNION, Mixing
from evaluate.experiment.arms import Arm, Run
from evaluate.generators import ARM_CLASSIFIER
from evaluate.records.records import MixingChoice, Record
from orchard.images import splits
from orchard.images.images import ImageSet

FOLDS = 5
"""Parts of an arm's real images, at most; each is scored by classifiers that have not seen it."""
CANDIDATES = 3
KEEPS: Mapping[str, tuple[str, ...]] = {
    "margin": ("--screen_classifier", ARM_CLASSIFIER),
    "hard": ("--screen_classifier", ARM_CLASSIFIER),
    "diverse": ("--screen_classifier", ARM_CLASSIFIER),
}
"""Rules of generate that choose between candidates, with the options that they need."""
UNTRIED = ("other amounts", "other real weights", "strong augmentation", "mixup", "cutmix")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What makes an arm's synthetic images, how many of them take part, and how they are mixed."""

    generator: str = ""
    """Empty where it is not to be chosen."""
    mixing: Mixing = UNION
    share: float = 1.0
    """Of the arm's synthetic images."""
    guidance: float | None = None
    """None for what generate takes."""
    adapter_weight: float = 1.0
    keep: str = ""
    """Rule by which one of `CANDIDATES` images is kept; empty where one is made for each place."""

    @property
    def label(self) -> str:
        """How records and tables call it."""
        if not self.share:
            return "no synthetic images"
        parts = [self.generator] if self.generator else []
        parts += [self.mixing.label] if self.mixing != UNION or not parts else []
        parts += [f"{self.share:.0%} of them"] if self.share < 1 else []
        parts += [f"guidance {self.guidance:g}"] if self.guidance is not None else []
        parts += [f"adapters at {self.adapter_weight:g}"] if self.adapter_weight != 1 else []
        parts += [f"{self.keep} of {CANDIDATES}"] if self.keep else []
        return ", ".join(parts)

    @property
    def sampling(self) -> tuple[str, ...]:
        """Options of generate, besides those of its generator."""
        words = ("--guidance", f"{self.guidance:g}") if self.guidance is not None else ()
        rule = ("--candidates", str(CANDIDATES), "--keep", self.keep, *KEEPS[self.keep]) if self.keep else ()
        return *words, *rule


ALONE = Candidate(share=0.0)
"""No synthetic images."""


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
        source = run.candidates.get(self.candidate.generator, run.source)
        if source is not None:
            source = source.asked(self.candidate.sampling, self.candidate.adapter_weight)
        return replace(run, source=source)


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
    return [ALONE, *(replace(one, generator=by) for by in generators for one in mixed)]


def chosen(record: Record, run: Run) -> Choice | None:
    """The choice that a run's record notes; None where none was made, or of what is not tried any more."""
    noted = record["mixing_choice"]
    if not noted:
        return None
    if "recipe" in noted:
        return Choice(candidate=of_recipe(noted["recipe"]), record=noted)
    known = {candidate.label: candidate for candidate in candidates(run)}
    candidate = known.get(noted["chosen"])
    return Choice(candidate=candidate, record=noted) if candidate else None


def of_recipe(recipe: Mapping[str, Any]) -> Candidate:
    """The candidate that a record or a trial notes as a mapping of its fields."""
    return Candidate(**{**recipe, "mixing": Mixing(**recipe["mixing"])})


def parts(run: Run) -> list[Set[str]]:
    """Hashes of the run's own real images in stratified parts: `FOLDS`, or as many as its smallest class has.

    A few held-out images choose no better than chance, so all of them take part.
    """
    contents = {(photo.label, photo.sha256) for photo in run.real}
    own = ImageSet(name=run.title, classes=tuple(run.arm.mixture.real), photos=tuple(run.real))
    smallest = min(Counter(label for label, _ in contents).values())
    return [*splits.folds(own, min(FOLDS, smallest), "validation", run.seeds.subset)]


def choose(run: Run, losses_of: Callable[[Candidate], np.ndarray]) -> Choice:
    """The best of all candidates, as `decide`; ``losses_of`` gives what that compares."""
    untried = UNTRIED if run.arm.mixing == "auto" else ("other ways of mixing", *UNTRIED)
    return decide({candidate: losses_of(candidate) for candidate in candidates(run)}, untried)


def decide(tried: Mapping[Candidate, np.ndarray], untried: Sequence[str] = ()) -> Choice:
    """No synthetic images, or the candidate of lowest loss if that is lower by more than one standard error.

    ``tried``, `ALONE` among them, has (N,) negative log-likelihoods in nats of the arm's own real
    images, each by a classifier that has not seen it. The error is that of the mean paired difference, as in
    the one-standard-error rule of Breiman et al. 1984: what few images do not tell apart is decided for the
    plainest.
    """
    gains = {candidate: tried[ALONE] - losses for candidate, losses in tried.items() if candidate != ALONE}
    errors = {candidate: float(gain.std(ddof=1)) / len(gain) ** 0.5 for candidate, gain in gains.items()}
    best = max(gains, key=lambda candidate: float(gains[candidate].mean()), default=ALONE)
    taken = best if best != ALONE and gains[best].mean() > errors[best] else ALONE
    return Choice(
        candidate=taken,
        record={
            "chosen": taken.label,
            "tried": {candidate.label: float(losses.mean()) for candidate, losses in tried.items()},
            "errors": {candidate.label: error for candidate, error in errors.items()},
            "untried": list(untried),
        },
    )
