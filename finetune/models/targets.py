"""Which layers of a base get an adapter: named sets, or endings of module names."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from orchard.bases.families import FAMILIES
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError

ATTENTION = frozenset(
    (
        *("to_q", "to_k", "to_v", "to_out.0"),
        # The text tokens of SD 3.
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        # Text encoders.
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    )
)
FEEDFORWARD = frozenset(
    (
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("mlp.fc1", "mlp.fc2"),
        # Sana, where the convolution between these two has a group for each channel.
        *("ff.conv_inverted", "ff.conv_point"),
    )
)
Targets = Mapping[str, tuple[str, ...]]
"""Endings of the names of layers that get an adapter, by component of the pipeline."""
SETS = ("attention", "attention+feedforward", "all-linear", "all")
"""What `--targets` knows by name; ``all`` is every linear layer and convolution."""


def adapted_components(family: str, *, trains_text: bool) -> tuple[str, ...]:
    """The components that get an adapter: the denoiser, and with ``trains_text`` CLIP's text encoders."""
    layout = FAMILIES[family]
    return (layout.denoiser, *(layout.clip_encoders if trains_text else ()))


def resolve(wanted: Sequence[str], pipe: Pipeline, family: str, *, trains_text: bool) -> Targets:
    """The layers that ``wanted`` names, as endings for peft, by component of ``pipe``.

    ``pipe`` may be an `orchard.adapters.layers.skeleton`.

    Raises:
        UserError: an ending of no layer, with near names; or a model that no ending is for.
    """
    models = {
        component: getattr(pipe, component)
        for component in adapted_components(family, trains_text=trains_text)
    }
    layers = {component: _layers(family, component, model) for component, model in models.items()}
    everything = [name for found in layers.values() for name in found]
    for target in wanted:
        if target not in SETS and not any(_ends(name, target) for name in everything):
            raise UserError(
                f"--targets {target}: no layer name of the base ends with that; {_near(target, everything)}"
            )
    resolved = {}
    for component, found in layers.items():
        chosen = {name for name, layer in found.items() if any(_is(name, layer, one) for one in wanted)}
        if not chosen:
            raise UserError(
                f"--targets {' '.join(wanted)}: no layer of {component} ends so; add attention, or endings "
                "of its layers too"
            )
        resolved[component] = _endings(chosen, [name for name, _ in models[component].named_modules()])
    return resolved


def require_unmasked(pipe: Pipeline, family: str, option: str) -> None:
    """Raise `UserError` naming ``option``, which trains through text encoders, where one masks padding.

    Stock pipelines do so where the config says it; no released base has it.
    """
    for component in adapted_components(family, trains_text=True)[1:]:
        if getattr(getattr(pipe, component).config, "use_attention_mask", False):
            raise UserError(f"{option}: the {component} of the base masks padding; leave it out")


def ranks_of(model: Any, endings: Sequence[str], patterns: Sequence[str]) -> dict[str, int]:
    """Layer of ``model`` -> its own rank, of those with an adapter that a pattern names.

    A pattern ``PART=RANK`` is for the layers that have PART in their names, in whole words between dots:
    ``mid_block``, ``down_blocks.1``, ``attn2.to_k``. The first one that fits counts.
    """
    pairs = [pattern.split("=") for pattern in patterns]
    adapted = [
        name
        for name, one in model.named_modules()
        if isinstance(one, nn.Linear | nn.Conv2d) and any(_ends(name, ending) for ending in endings)
    ]
    fitting = {name: [int(rank) for part, rank in pairs if _has(name, part)] for name in adapted}
    return {name: ranks[0] for name, ranks in fitting.items() if ranks}


def _has(name: str, part: str) -> bool:
    return f".{part}." in f".{name}."


def require_ranks(patterns: Sequence[str], pipe: Pipeline, targets: Targets) -> None:
    """Raise `UserError` for a pattern of `ranks_of` that is none, or that no layer with an adapter fits."""
    for pattern in patterns:
        found = any(ranks_of(getattr(pipe, name), endings, [pattern]) for name, endings in targets.items())
        if not found:
            raise UserError(
                f"--rank_pattern {pattern}: no layer with an adapter has {pattern.partition('=')[0]} in its "
                "name; give a part of one between dots, such as mid_block or attn2"
            )


def _layers(family: str, component: str, model: Any) -> dict[str, nn.Module]:
    """The layers that an adapter can be on, by name; of a text encoder those that stock diffusers loads."""
    if not component.startswith("text_encoder"):
        return {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)}
    # SDXL takes the states before the last layer and pools those of its second encoder alone, so the last
    # layer of the first would never learn.
    unused = family == "sdxl" and component == "text_encoder"
    blocks = range(model.config.num_hidden_layers - unused)
    wanted = tuple(f"encoder.layers.{block}." for block in blocks)
    linear = ((name, one) for name, one in model.named_modules() if isinstance(one, nn.Linear))
    return {name: one for name, one in linear if name.removeprefix("text_model.").startswith(wanted)}


def _is(name: str, layer: nn.Module, target: str) -> bool:
    if target == "all":
        return True
    if target == "all-linear":
        return isinstance(layer, nn.Linear)
    endings = {"attention": ATTENTION, "attention+feedforward": ATTENTION | FEEDFORWARD}
    return any(_ends(name, ending) for ending in endings.get(target, {target}))


def _ends(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")


def _near(target: str, names: Iterable[str]) -> str:
    endings = sorted({".".join(name.split(".")[-k:]) for name in names for k in (1, 2, 3)})
    near = difflib.get_close_matches(target, [*SETS, *endings], n=4, cutoff=0.5)
    return f"give {' or '.join(near or SETS)}"


def _endings(chosen: set[str], names: Sequence[str]) -> tuple[str, ...]:
    """Short endings that all ``chosen`` of the ``names`` have and no others."""
    found: set[str] = set()
    for name in sorted(chosen):
        if any(_ends(name, ending) for ending in found):
            continue
        words = name.split(".")
        candidates = (".".join(words[-k:]) for k in range(1, len(words) + 1))
        found.add(next(one for one in candidates if _only(one, chosen, names)))
    return tuple(sorted(found))


def _only(ending: str, chosen: set[str], names: Sequence[str]) -> bool:
    return all(name in chosen for name in names if _ends(name, ending))
