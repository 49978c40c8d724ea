"""Adapters in a pipeline: every tensor of a file finds its layer, or the pipeline stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchard.adapters import dialects, embeddings, layers, lycoris, peft_state, scaling
from orchard.adapters.adapter import Adapter, is_lycoris, made_for, weights_of
from orchard.adapters.scaling import Scaling
from orchard.adapters.tensor_roles import DOWN, MAGNITUDE, MID, UP, by_module
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def require_matching_layers(adapter: Adapter, base: Base) -> None:
    """Raise `UserError` when a tensor finds no place in the base; reads its configs, not its weights."""
    skeleton = layers.skeleton(base.folder)
    vectors_for(skeleton, [adapter])
    if adapter.methods:
        _placed(skeleton, adapter)


def vectors_for(pipe: Pipeline, adapters: Iterable[Adapter]) -> dict[str, dict[str, Tensor]]:
    """Text encoder -> word -> vectors (N, D) of the adapters' words.

    Raises:
        UserError: they are for other text encoders than the pipeline has.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for adapter in adapters:
        for word, path in adapter.vectors.items():
            vectors = embeddings.read(path, word)
            widths = {
                name: encoder.get_input_embeddings().weight.shape[1]
                for name in embeddings.KEYS
                if (encoder := getattr(pipe, name, None)) is not None
            }
            if {name: value.shape[1] for name, value in vectors.items()} != widths:
                wide = ", ".join(f"{name} {width}" for name, width in widths.items())
                raise UserError(
                    f"--lora {path}: its vectors of {word} are for text encoders of other widths than those "
                    f"of the base ({wide}); pass the base it was made for"
                )
            for name, value in vectors.items():
                found.setdefault(name, {})[word] = value
    return found


def attach(pipe: Pipeline, adapter: Adapter) -> None:
    """Load the adapter into a stock pipeline, instead of those that are there.

    Every tensor is matched with its layer first, so a file that is refused leaves the pipeline as it was.

    Raises:
        UserError: a tensor found no place in the pipeline, or one of another shape.
    """
    fitting = _placed(pipe, adapter) if adapter.methods else {}
    learn_words(pipe, [adapter])
    pipe.unload_lora_weights()
    if fitting:
        _load(pipe, adapter, fitting, "default")


def learn_words(pipe: Pipeline, adapters: Sequence[Adapter]) -> None:
    """Let the pipeline know the words of these adapters, and no others; raises as `vectors_for`."""
    from orchard.bases.embeddings import extend

    extend(pipe, vectors_for(pipe, adapters))


def add(pipe: Pipeline, adapter: Adapter, name: str) -> None:
    """Load the adapter's layers into a stock pipeline under ``name``, beside those that are there.

    Raises:
        UserError: as for `attach`.
    """
    _load(pipe, adapter, _placed(pipe, adapter), name)


def _load(pipe: Pipeline, adapter: Adapter, fitting: Mapping[str, Tensor], name: str) -> None:
    """Load the tensors as LoRA ``name``; LoHa and LoKr, which have to be alone, through peft."""
    fitting = _without_start(fitting, adapter, pipe)
    if is_lycoris(adapter):
        lycoris.attach(pipe, fitting, adapter.methods[0])
    else:
        _load_stock(pipe, adapter, fitting, name)


def _load_stock(pipe: Pipeline, adapter: Adapter, fitting: Mapping[str, Tensor], name: str) -> None:
    """Let the stock pipeline load the tensors; after an error it is without any."""
    try:
        pipe.load_lora_weights(dialects.for_stock(fitting), adapter_name=name)
        loaded = _attached(pipe, name)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        pipe.unload_lora_weights()
        reason = str(error).strip().splitlines()[-1].strip()[:160]
        raise UserError(f"--lora {adapter.path}: does not fit {type(pipe).__name__} ({reason})") from None
    if loaded != len(fitting):
        pipe.unload_lora_weights()
        raise UserError(_misfit(pipe, adapter, loaded, len(fitting), "the rest"))
    if "dora" in adapter.methods:
        _keep_norms_exact(pipe, fitting, name)


def _keep_norms_exact(pipe: Pipeline, fitting: Mapping[str, Tensor], name: str) -> None:
    """Have DoRA's norms in float32, also where the stock loader has brought them to the base's precision."""
    for module, parts in by_module(fitting).items():
        if MAGNITUDE in parts:
            component, _, path = module.partition(".")
            model = getattr(pipe, component)
            layer = model.get_submodule(layers.path_in(model, path)).lora_magnitude_vector[name]
            layer.weight.data = parts[MAGNITUDE].float().to(layer.weight.device)
            peft_state.keep_norms_exact(layer)


def _placed(pipe: Pipeline, adapter: Adapter) -> dict[str, Tensor]:
    """The tensors as the pipeline's layers take them; `UserError` when one has no layer."""
    blocks = layers.per_block(getattr(pipe, "unet", None))
    try:
        plain = scaling.normalise(weights_of(adapter), adapter.scalings, blocks)
    except ValueError as error:
        raise UserError(f"--lora {adapter.path}: {error}") from None
    fitting, unmatched = layers.match_layers(plain, pipe)
    if unmatched:
        counted = sum(not name.endswith(MID) for name in plain)
        raise UserError(_misfit(pipe, adapter, len(fitting), counted, unmatched[0]))
    if len(adapter.methods) > 1 and set(adapter.methods) & set(lycoris.METHODS):
        raise UserError(
            f"--lora {adapter.path}: holds {' and '.join(adapter.methods)}; only files with a single method "
            "can be loaded"
        )
    if strange := [module for module in _started(fitting, adapter) if fitting[f"{module}.{DOWN}"].ndim != 2]:
        raise UserError(
            f"--lora {adapter.path}: its config says what peft does with linear layers alone, but "
            f"{strange[0]} is a convolution"
        )
    return fitting


def _started(fitting: Mapping[str, Tensor], adapter: Adapter) -> dict[str, tuple[Scaling, str]]:
    """Modules whose LoRA began as a part of the base's weights; config and path of each."""
    configs = {
        module: scaling.config_of(adapter.scalings, module)
        for module, parts in by_module(fitting).items()
        if DOWN in parts
    }
    return {
        module: (config, path) for module, (config, path) in configs.items() if config and config.taken_out
    }


def _without_start(fitting: Mapping[str, Tensor], adapter: Adapter, pipe: Pipeline) -> dict[str, Tensor]:
    """A LoRA that began as a part of the base's weights, as what it adds to the whole ones.

    B A - B0 A0 is [B, -B0] [A; A0], and peft's initialisations make B0 A0 from the weight alone: PiSSA (Meng
    et al. 2024) from its largest singular values, OLoRA (Buyukakyuz 2024) from its QR decomposition.
    """
    import torch

    plain = dict(fitting)
    for module, (config, path) in _started(fitting, adapter).items():
        parts = {role: fitting[f"{module}.{role}"] for role in (DOWN, UP)}
        rank, weight = len(parts[DOWN]), layers.weight_of(pipe, module).detach().float()
        assert not weight.is_meta, module
        if config.taken_out == "pissa":
            left, values, right = torch.linalg.svd(weight, full_matrices=False)
            up, down = left[:, :rank] * values[:rank], right[:rank]
        else:
            left, right = torch.linalg.qr(weight)
            up, down = left[:, :rank] * config.of(path, rank), right[:rank]
        plain[f"{module}.{DOWN}"] = torch.cat([parts[DOWN], down.to(parts[DOWN].device)])
        plain[f"{module}.{UP}"] = torch.cat([parts[UP], -up.to(parts[UP].device)], dim=1)
    return plain


def _attached(pipe: Pipeline, name: str) -> int:
    """Tensors of the LoRA ``name`` in the pipeline's models."""
    models = (model for model in pipe.components.values() if hasattr(model, "named_parameters"))
    keys = (key for model in models for key, _ in model.named_parameters())
    return sum(".lora_" in key and f".{name}." in f"{key}." for key in keys)


def _misfit(pipe: Pipeline, adapter: Adapter, matched: int, tensors: int, first: str) -> str:
    loaded = f"{layers.family_of_pipeline(pipe)} ({type(pipe).__name__})"
    return (
        f"--lora {adapter.path}: {matched} of {tensors} LoRA tensors matched; it seems made for "
        f"{made_for(adapter)}, with the names of {adapter.dialect}, loaded is {loaded}, "
        f"which has no place for {first[:120]}"
    )
