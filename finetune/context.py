"""What a run consists of: its jobs, and what they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finetune.config import TrainLora
from finetune.models.family import Family
from finetune.models.targets import Targets
from finetune.planning.devices import is_sharded
from finetune.training.interrupt import Interrupt
from orchard.bases.bases import Base
from orchard.images.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class Job:
    """One adapter to train: its name, its classes and their photos."""

    name: str
    classes: tuple[str, ...]
    photos: ImageSet

    def path(self, output: Path) -> Path:
        """Where its adapter goes."""
        return output / f"{self.name}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all jobs of a run share."""

    config: TrainLora
    base: Base
    family: Family
    targets: Targets
    """Layers that get an adapter, as endings of their names, by place in the pipeline."""
    accelerator: Accelerator
    interrupt: Interrupt
    scaler: Mapping[str, Any] = field(default_factory=dict)
    """State of a loss scaler that has not seen a loss yet; empty without one."""

    @property
    def sharded(self) -> bool:
        """Whether all processes must take part when the network is called."""
        return is_sharded(self.accelerator)
