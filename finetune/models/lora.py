"""Adapters of every method on a model, through peft: inject, disable, remove."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from finetune.config import TrainLora
from finetune.models.family import Family
from finetune.models.targets import ATTENTION, Targets, ranks_of
from orchard.adapters import adapter, embeddings, peft_state
from orchard.adapters.provenance import Embedding, Provenance
from orchard.adapters.tensor_roles import Method
from orchard.bases import embeddings as known_words
from orchard.bases.pipeline import Pipeline
from orchard.images.splits import stable_hash

EXPORTS = ("kohya", "merged")
"""Folders beside the adapters for the files that other tools read, one for each value of ``--export``."""


def inject(
    model: Any,
    rank: int,
    alpha: float,
    seed: int,
    targets: Iterable[str] = ATTENTION,
    method: Method = "lora",
    *,
    ranks: Mapping[str, int] = {},
    use_rslora: bool = False,
    pissa: bool = False,
) -> list[torch.nn.Parameter]:
    """Add a fresh adapter to the layers whose names end so; returns its parameters, the only trainable ones.

    They are float32, whatever the model is. ``ranks`` are those of single layers by name; an ``alpha`` of 0
    is the rank of each layer. ``pissa`` lets it start from the weights' largest singular values.
    """
    model.requires_grad_(False)
    config = _config(method, rank, alpha, sorted(targets), ranks, use_rslora=use_rslora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    if method == "dora":
        _start_at_exact_norms(model)
    if pissa:
        _start_at_largest_values(model, config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        # Updates of bf16 weights would be rounded away.
        parameter.data = parameter.data.float()
    return parameters


def _start_at_exact_norms(model: Any) -> None:
    """Let DoRA begin at the norms of the base's rows in float32, as it takes them in every step."""
    peft_state.keep_norms_exact(model)
    for layer in peft_state.dora_layers(model).values():
        layer.lora_magnitude_vector["default"].update_layer(
            base_layer=layer.get_base_layer(),
            lora_A=layer.lora_A["default"].weight,
            lora_B=layer.lora_B["default"].weight,
            scaling=layer.scaling["default"],
        )


def _start_at_largest_values(model: Any, config: PeftConfig) -> None:
    """Let LoRA begin as PiSSA does: at the part of each weight that its largest singular values make up.

    Meng et al. 2024, equations 2 to 4. The weight itself stays whole: a second adapter, which does not learn,
    takes the same part off. Both together are what is learned, on the base as it was.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=peft_state.START)
    for layer in peft_state.tuned_layers(model).values():
        down, up = (getattr(layer, f"lora_{role}") for role in "AB")
        weight = layer.get_base_layer().weight.detach().float()
        left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        rank = layer.r["default"]
        roots = (values[:rank] / layer.scaling["default"]).sqrt()
        first = {"A": roots[:, None] * right[:rank], "B": left[:, :rank] * roots}
        layer.set_adapter(["default", peft_state.START])
        for one, sign in (("default", 1), (peft_state.START, -1)):
            down[one].weight.data = first["A"].reshape(down[one].weight.shape).clone()
            up[one].weight.data = sign * first["B"].reshape(up[one].weight.shape)
        for part in (down, up):
            part[peft_state.START].requires_grad_(False)


def inject_all(family: Family, targets: Targets, config: TrainLora) -> dict[str, list[torch.nn.Parameter]]:
    """`inject` into the models that have ``targets``, as ``config`` says; parameters by component."""
    return {
        name: inject(
            getattr(family.pipe, name),
            config.rank,
            config.alpha,
            _seed(family, name, config.seed),
            endings,
            cast(Method, config.method),
            ranks=ranks_of(getattr(family.pipe, name), endings, config.rank_pattern),
            use_rslora=config.use_rslora,
            pissa=config.init_lora_weights == "pissa",
        )
        for name, endings in targets.items()
    }


def count(pipe: Pipeline, targets: Targets, config: TrainLora) -> int:
    """Weights of an adapter, for which it is added to ``pipe``, a skeleton."""
    found = 0
    for name, endings in targets.items():
        model = getattr(pipe, name)
        ranks = ranks_of(model, endings, config.rank_pattern)
        shape, method = (config.rank, config.alpha, config.seed), cast(Method, config.method)
        found += sum(one.numel() for one in inject(model, *shape, endings, method, ranks=ranks))
    return found


def _seed(family: Family, component: str, seed: int) -> int:
    return seed if component == family.prefix else stable_hash(component, seed)


def _config(
    method: Method,
    rank: int,
    alpha: float,
    targets: list[str],
    ranks: Mapping[str, int],
    *,
    use_rslora: bool = False,
) -> PeftConfig:
    # peft's annotation says int, but it only divides alpha by the rank.
    whole = cast(int, alpha or rank)
    shared: dict[str, Any] = {"r": rank, "target_modules": targets}
    if ranks:
        shared |= {"rank_pattern": dict(ranks), "alpha_pattern": {} if alpha else dict(ranks)}
    if method == "loha":
        return LoHaConfig(alpha=whole, **shared)
    if method == "lokr":
        return LoKrConfig(alpha=whole, **shared)
    return LoraConfig(
        lora_alpha=whole,
        init_lora_weights="gaussian",
        use_dora=method == "dora",
        use_rslora=use_rslora,
        **shared,
    )


def up_matrices(model: Any) -> frozenset[torch.nn.Parameter]:
    """The parameters that LoRA+ (Hayou et al. 2024) trains faster: the B matrices, and the norms of DoRA.

    As in peft's `create_loraplus_optimizer`.
    """
    roles = (".lora_B.", ".lora_magnitude_vector.")
    return frozenset(one for name, one in model.named_parameters() if any(role in name for role in roles))


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Layers with an adapter: the part of a `Method` that trains them."""

    targets: Targets
    config: TrainLora

    def put_in(self, family: Family) -> dict[str, list[torch.nn.Parameter]]:
        """As `inject_all`."""
        return inject_all(family, self.targets, self.config)

    @contextmanager
    def base_alone(self, family: Family) -> Iterator[None]:
        """Inside, the models compute what they do without their adapters."""
        with disabled(getattr(family.pipe, name) for name in self.targets):
            yield

    def take_out(self, family: Family) -> None:
        """Leave the base as it was."""
        for name in self.targets:
            remove(getattr(family.pipe, name))

    def save(self, path: Path, family: Family, provenance: Provenance) -> Provenance:
        """Write the adapter, and before it by ``--export`` a file for other tools."""
        encoders = {name: model for name, model in family.text_encoders.items() if name in self.targets}
        for export in EXPORTS:  # those of an adapter that this one replaces are not its own
            exported(path, export).unlink(missing_ok=True)
        if self.config.export != "none":
            vectors = known_words.vectors_of(family.pipe, family.words)
            said = provenance.embeddings.items()
            inside: dict[str, Embedding] = {name: {**one, "sha256": ""} for name, one in said}
            adapter.save(
                exported(path, self.config.export),
                family.denoiser,
                replace(provenance, embeddings=inside),
                prefix=family.prefix,
                text_encoders=encoders,
                dialect=self.config.export,
                bundled=embeddings.bundled(vectors),
            )
        adapter.save(path, family.denoiser, provenance, prefix=family.prefix, text_encoders=encoders)
        return provenance


def exported(path: Path, export: str) -> Path:
    """Where ``--export`` puts the adapter for other tools."""
    return path.parent / export / path.name


@contextmanager
def disabled(models: Iterable[Any]) -> Iterator[None]:
    """Inside, the models compute what they do without their adapters."""
    layers = [layer for model in models for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def remove(model: Any) -> None:
    """Take the adapter out again, leaving the base as it was."""
    from diffusers.utils import recurse_remove_peft_layers

    recurse_remove_peft_layers(model)
    del model.peft_config
