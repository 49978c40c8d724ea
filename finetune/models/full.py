"""All weights of a base in training: DreamBooth in full (Ruiz et al. 2023)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from finetune.models.family import Family
from orchard.adapters.provenance import NAME, Provenance
from orchard.files import atomic, checked_json

LARGEST_FILE = "5GB"
"""Of a component's weights; larger ones are sharded."""


@dataclass(kw_only=True)
class AllWeights:
    """Denoiser, and with ``--train_text_encoder`` text encoders: the part of a `Method` that trains them."""

    before: dict[str, list[Tensor]] = field(default_factory=dict)
    """The base's own weights by component, on the CPU."""

    def put_in(self, family: Family) -> dict[str, list[torch.nn.Parameter]]:
        """Have the weights in float32: updates of bf16 weights would be rounded away."""
        found = {}
        for name, model in family.models.items():
            weights = list(model.parameters())
            self.before[name] = [weight.detach().to("cpu", copy=True) for weight in weights]
            for weight in weights:
                weight.data = weight.data.float()
            model.requires_grad_(True)
            for part in _unused(family, name):
                part.requires_grad_(False)
            found[name] = [weight for weight in weights if weight.requires_grad]
        return found

    @contextmanager
    def base_alone(self, family: Family) -> Iterator[None]:
        """Inside, the models have the base's own weights."""
        trained = {
            name: [weight.data for weight in model.parameters()] for name, model in family.models.items()
        }
        self._set(family, self.before)
        try:
            yield
        finally:
            self._set(family, trained)

    def take_out(self, family: Family) -> None:
        """Leave the base as it was."""
        self._set(family, self.before)
        for model in family.models.values():
            model.requires_grad_(False)
        self.before = {}

    def _set(self, family: Family, weights: dict[str, list[Tensor]]) -> None:
        for name, values in weights.items():
            for weight, value in zip(family.models[name].parameters(), values, strict=True):
                weight.data = value.to(weight.device)

    def save(self, path: Path, family: Family, provenance: Provenance) -> Provenance:
        """Write the pipeline into the folder ``path``, in the precision of the run, whole or not at all."""
        dtype = family.pipe.vae.dtype
        trained = {
            name: [weight.data for weight in model.parameters()] for name, model in family.models.items()
        }
        self._set(family, {name: [value.to(dtype) for value in found] for name, found in trained.items()})
        with atomic.whole_folder(path) as aside:
            family.pipe.save_pretrained(aside, safe_serialization=True, max_shard_size=LARGEST_FILE)
            _forget_places(aside)
            atomic.write_json(aside / NAME, asdict(provenance))
        self._set(family, trained)
        return provenance


def _forget_places(folder: Path) -> None:
    """Take out of the configs of a pipeline where on this machine its base lay, as diffusers notes it."""
    for path in (folder / "model_index.json", *folder.glob("*/config.json")):
        config = checked_json.parse(checked_json.read(path))
        if config.pop("_name_or_path", None) is not None:
            atomic.write_json(path, config)


def _unused(family: Family, component: str) -> list[torch.nn.Module]:
    """Layers that nothing is computed from, and so have no gradient.

    SDXL takes the states before the last layer, and pools those of its second text encoder alone.
    """
    if family.name != "sdxl" or component != "text_encoder":
        return []
    model = getattr(family.pipe, component)
    text = getattr(model, "text_model", model)
    return [text.encoder.layers[-1], text.final_layer_norm]
