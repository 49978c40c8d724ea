"""The facts of a run: the plan, its jobs (one per adapter), and what is loaded once the plan stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finetune.config import TrainLora
from finetune.data.captions import ContextCaptions
from finetune.data.encoded_cache import Keys
from finetune.models.family import Family
from finetune.models.targets import Targets
from finetune.training.checkpoints import Checkpoint
from finetune.training.interrupt import Interrupt
from finetune.training.sharded import is_sharded
from orchard.adapters.privacy import Privacy
from orchard.bases.bases import Base
from orchard.images.images import ImageSet, Photo


@dataclass(frozen=True, kw_only=True)
class Job:
    """One adapter to train, and how far an earlier run got with it."""

    name: str
    classes: tuple[str, ...]
    photos: ImageSet
    prior_photos: ImageSet | None = None
    """The user's own images for prior preservation; None without."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Everything its weights depend on; equal values give equal adapters on one machine."""
    privacy: Privacy | None = None
    """What is promised to each of its photos."""
    checkpoint: Checkpoint | None = None
    """Where to resume; None starts from the first step."""
    finished: bool = False
    whole: bool = False
    """Whether all weights are trained, so that it makes the folder of a pipeline instead of a file."""

    @property
    def encoded(self) -> list[Photo]:
        """Every image of its that is encoded."""
        return [*self.photos.photos, *(self.prior_photos.photos if self.prior_photos else ())]

    @property
    def steps_done(self) -> int:
        """Optimiser steps that its checkpoint holds."""
        return self.checkpoint.step if self.checkpoint else 0

    def path(self, output: Path) -> Path:
        """Where its adapter is written, or its pipeline."""
        return output / (self.name if self.whole else f"{self.name}.safetensors")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that passed every check that needs no weights."""

    base: Base
    photos: ImageSet
    """All photos it trains on."""
    targets: Targets
    jobs: Sequence[Job]
    """All of them, finished ones included."""
    broken: Sequence[str]
    """One line about each broken checkpoint that was skipped."""
    precision: str
    cache: Path | None
    """Folder of encoded photos and prompts; None keeps none."""
    keys: Keys
    """Their keys in it."""
    captions: ContextCaptions = field(default_factory=ContextCaptions)
    """Contexts that are said of the photos."""
    checks: Sequence[str]
    """Lines about buckets, cache, disk and device."""

    @property
    def unfinished(self) -> list[Job]:
        """The jobs that are left to train."""
        return [job for job in self.jobs if not job.finished]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What all jobs of a run share once the base is loaded."""

    config: TrainLora
    plan: Plan
    family: Family
    accelerator: Accelerator
    interrupt: Interrupt
    scaler: Mapping[str, Any] = field(default_factory=dict)
    """State of a loss scaler before its first loss; empty without one."""

    @property
    def sharded(self) -> bool:
        """Whether all processes must take part when the network is called."""
        return is_sharded(self.accelerator)
