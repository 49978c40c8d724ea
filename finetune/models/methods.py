"""What a run trains of a family: layers with an adapter, all weights, words, or layers and words."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from finetune.config import TrainLora
from finetune.models import lora, targets
from finetune.models.family import Family
from finetune.models.full import AllWeights
from finetune.models.lora import Layers
from finetune.models.targets import Targets
from finetune.models.words import Words, words_of
from orchard.adapters.provenance import FULL, INVERSION, Provenance
from orchard.bases.embeddings import ENCODERS
from orchard.bases.pipeline import Pipeline


def parameters(config: TrainLora, pipe: Pipeline, family: str, layers: Targets) -> int:
    """How many weights learn for one class; ``pipe`` may be a skeleton, to which adapters are added."""
    if config.method == FULL:
        names = targets.adapted_components(family, trains_text=config.train_text_encoder)
        return sum(weight.numel() for name in names for weight in getattr(pipe, name).parameters())
    widths = [encoder.config.hidden_size for name in ENCODERS if (encoder := getattr(pipe, name, None))]
    return config.vectors * sum(widths) + lora.count(pipe, layers, config)


class Part(Protocol):
    """Something that learns: put into a family, taken out again, written as its users read it."""

    def put_in(self, family: Family) -> dict[str, list[torch.nn.Parameter]]:
        """Put it in as it starts; its parameters by component of the pipeline, the only ones that learn."""

    def base_alone(self, family: Family) -> AbstractContextManager[None]:
        """Inside, the family computes what its base does."""

    def take_out(self, family: Family) -> None:
        """Leave the base as it was, to the bit."""

    def save(self, path: Path, family: Family, provenance: Provenance) -> Provenance:
        """Write what was learned, whole or not at all; the provenance with what following parts say of it."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """The parts that learn together; the last one's file is the one that makes a job finished."""

    parts: tuple[Part, ...]

    def put_in(self, family: Family) -> dict[str, list[torch.nn.Parameter]]:
        """Put all parts in; the parameters of each component, that of a part without any too."""
        for model in family.models.values():
            model.requires_grad_(False)
        found: dict[str, list[torch.nn.Parameter]] = {name: [] for name in family.models}
        for part in reversed(self.parts):
            for name, parameters in part.put_in(family).items():
                found[name] += parameters
        return found

    @contextmanager
    def base_alone(self, family: Family) -> Iterator[None]:
        """Inside, the family computes what its base does."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.base_alone(family))
            yield

    def take_out(self, family: Family) -> None:
        """Leave the base as it was, to the bit."""
        for part in self.parts:
            part.take_out(family)

    def save(self, path: Path, family: Family, provenance: Provenance) -> None:
        """Write all parts."""
        for part in self.parts:
            provenance = part.save(path, family, provenance)


def targets_of(config: TrainLora, pipe: Pipeline, family: str) -> Targets:
    """The layers that get an adapter, if any do; ``pipe`` may be a skeleton. Errors as `targets.resolve`."""
    trains_text = config.train_text_encoder
    if trains_text or config.vectors:
        option = "--train_text_encoder" if trains_text else "--num_vectors"
        targets.require_unmasked(
            pipe, family, f"--method {INVERSION}" if config.method == INVERSION else option
        )
    if config.method in (FULL, INVERSION):
        return {}
    found = targets.resolve(config.targets, pipe, family, trains_text=trains_text)
    targets.require_ranks(config.rank_pattern, pipe, found)
    return found


def method_of(config: TrainLora, layers: Targets, classes: Sequence[str]) -> Method:
    """The method that the options name, for an adapter of these classes."""
    if config.method == FULL:
        return Method(parts=(AllWeights(),))
    adapters = () if config.method == INVERSION else (Layers(targets=layers, config=config),)
    words = words_of(config, classes)
    of_words = (Words(of=words, vectors=config.vectors, alone=not adapters),) if words else ()
    return Method(parts=(*of_words, *adapters))
