"""Arms of an experiment, and the runs that repeat them over seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

from classify.config import Training
from classify.mixing import Mixing
from evaluate.config import Evaluate, SeedName
from evaluate.config import Mixing as MixingName
from evaluate.experiment.mixtures import Mixture
from evaluate.generators import GIVEN, NONE, plain
from evaluate.records import records
from evaluate.records.records import Key
from orchard.images.images import ImageSet, Photo


class Source(Protocol):
    """Where an arm's synthetic images come from."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def is_there(self) -> bool:
        """Whether nothing is left to make."""

    def images(self) -> ImageSet:
        """The synthetic set; made first where it has to be."""

    def without(self, photos: Set[str]) -> "Source":
        """The same, made without the photos of these hashes where that can be had."""

    def asked(self, sampling: Sequence[str], weight: float) -> "Source":
        """The same, made with further options of generate and adapters at a weight."""


@dataclass(frozen=True, kw_only=True)
class ExistingSet:
    """A synthetic set that was there before the experiment."""

    found: ImageSet

    @property
    def name(self) -> str:
        """Its folder."""
        return self.found.name

    @property
    def is_there(self) -> bool:
        """Always."""
        return True

    def images(self) -> ImageSet:
        """The set as it was read."""
        return self.found

    def without(self, photos: Set[str]) -> "ExistingSet":
        """Itself: what it was made from is past."""
        return self

    def asked(self, sampling: Sequence[str], weight: float) -> "ExistingSet":
        """Itself, which nothing else is asked of."""
        assert not sampling and weight == 1, (sampling, weight)
        return self


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The three seeds of a run."""

    subset: int
    generator: int
    classifier: int


def seeds_of(config: Evaluate) -> list[Seeds]:
    """One triple a run of an arm; those that ``--vary_seeds`` leaves out stay at their first value."""
    return [
        Seeds(**{name: config.seed + run * (name in config.vary_seeds) for name in get_args(SeedName)})
        for run in range(config.seeds)
    ]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one line of a results table stands for; `evaluate.records.records` says what the fields mean."""

    name: str
    design: str
    mixture: Mixture
    generator: str = NONE
    mixing: MixingName = "union"
    real_weight: float = 0.8
    total: int = 0
    shots: int | None = None
    fold: int | None = None
    repeat: int | None = None

    @property
    def mixed_by(self) -> str:
        """The way of mixing, with its weight where it has one."""
        if self.mixing == "auto":
            return f"auto {self.real_weight:g}"
        return Mixing(name=self.mixing, real_weight=self.real_weight).label

    @property
    def title(self) -> str:
        """How progress and failures call it."""
        places = {"shots": self.shots, "fold": self.fold, "repeat": self.repeat}
        parts = [f"{name} {value}" for name, value in places.items() if value is not None]
        parts += [self.name] if self.name not in places and self.name != "ratio" else []
        by = self.generator if self.mixture.ratio < 1 else plain(self.name)
        parts += [by] if by != plain(self.name) else []
        parts += [self.mixed_by] if self.mixing != "union" else []
        parts += [f"{self.total} images"] if self.total else []
        return ", ".join([f"{self.mixture.ratio:.0%} real", *parts])


@dataclass(frozen=True, kw_only=True)
class Run:
    """One classifier to train and to score."""

    arm: Arm
    seeds: Seeds
    real: Sequence[Photo]
    held_out: Sequence[Photo]
    """Real validation images; none of them is in ``real``."""
    test: Sequence[Photo]
    source: Source | None
    """None where the arm has no synthetic image, and where its generator is to be chosen."""
    options: Training
    candidates: Mapping[str, Source] = field(default_factory=dict)
    """Generator -> its images, where one is to be chosen."""

    @property
    def chooses(self) -> bool:
        """Whether validation images choose how, or by what, its arm is made."""
        return self.arm.mixing == "auto" or bool(self.candidates)

    def blind_to(self, photos: Set[str]) -> "Run":
        """The run with what its images may come from made without the photos of these hashes."""
        source = self.source.without(photos) if self.source is not None else None
        others = {name: candidate.without(photos) for name, candidate in self.candidates.items()}
        return replace(self, source=source, candidates=others)

    @property
    def sources(self) -> list[Source]:
        """All that its synthetic images may come from."""
        return [self.source] if self.source is not None else [*self.candidates.values()]

    @property
    def held_out_synthetic(self) -> dict[str, int]:
        """Synthetic validation images of each class: as many as real ones with ``--validation mixed``."""
        mixed = self.options.validation == "mixed" and bool(self.sources)
        real = Counter(photo.label for photo in self.held_out)
        return {name: real[name] * mixed for name in self.arm.mixture.synthetic}

    @property
    def needed(self) -> dict[str, int]:
        """Synthetic images of each class, those to validate on included."""
        return {n: count + self.held_out_synthetic[n] for n, count in self.arm.mixture.synthetic.items()}

    @property
    def identity(self) -> records.Identity:
        """The fields of the run's record that tell it from others."""
        arm = self.arm
        return {
            "arm": arm.name,
            "design": arm.design,
            "ratio": arm.mixture.ratio,
            "total": arm.total,
            "shots": arm.shots,
            "fold": arm.fold,
            "repeat": arm.repeat,
            "mixing": arm.mixed_by,
            "generator": arm.generator,
            "subset_seed": self.seeds.subset,
            "generator_seed": self.seeds.generator if arm.generator not in (NONE, GIVEN) else None,
            "seed": self.seeds.classifier,
        }

    @property
    def key(self) -> Key:
        """As `records.key` of its record."""
        return records.key(self.identity)

    @property
    def arm_key(self) -> Key:
        """The same for all runs of an arm."""
        return records.arm_key(self.identity)

    @property
    def choice_key(self) -> Key:
        """The same for all runs that share a choice."""
        return records.choice_key(self.identity)

    @property
    def title(self) -> str:
        """How progress and failures call it."""
        return f"{self.arm.title}, seed {self.seeds.classifier}"
