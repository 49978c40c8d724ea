"""Which layers of a pipeline a LoRA fits, and which family a LoRA or a pipeline is of."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from orchard.adapters.tensor_roles import BIAS, DOWN, MAGNITUDE, UP, Shape, added, by_module, fits, method_of
from orchard.bases import bases, components
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError, one_line
from orchard.files import checked_json, checked_safetensors

if TYPE_CHECKING:
    from torch import Tensor

_TUNED = ("unet", "transformer", "text_encoder", "text_encoder_2")
_WIDTHS = {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}


def skeleton(folder: Path, parts: Sequence[str] = _TUNED) -> Any:
    """The models of the pipeline in ``folder`` that a LoRA could be for, right in shape but without weights.

    It stands for the pipeline in `place` and `family_of_pipeline`, and costs no memory.
    """
    index = checked_json.parse(checked_json.read(folder / "model_index.json"))
    models = {name: _made(folder, name, index) for name in parts if (index.get(name) or [None])[0]}
    return type(index["_class_name"], (SimpleNamespace,), {})(**models)


def _made(folder: Path, part: str, index: Mapping[str, Any]) -> Any:
    """A model without weights, or a tokenizer."""
    import torch

    library, kind = index[part]
    made = getattr(importlib.import_module(library), kind)
    if part.startswith("tokenizer"):
        return made.from_pretrained(folder / part, local_files_only=True)
    with torch.device("meta"):
        if library == "diffusers":
            return made.from_config(made.load_config(folder / part))
        return made(made.config_class.from_pretrained(folder / part))


@functools.cache
def require_loadable(base: Base) -> None:
    """Raise `UserError` unless all parts can be made from the base's files and its weights fit them.

    Of the weights it reads names and shapes alone.
    """
    index, layout = bases.index(base), FAMILIES[base.family]
    bases.scheduler(base)
    for part in layout.classes:
        if part == "scheduler" or not (index.get(part) or [None])[0]:
            continue
        try:
            made = _made(base.folder, part, index)
        except Exception as error:  # whatever the files make the libraries raise
            raise UserError(
                f"--base {base.name}: its {part} cannot be made from its files ({one_line(error)}); "
                "fetch it anew"
            ) from None
        if base.file is None and not part.startswith("tokenizer"):
            _require_weights(base, part, made, whole=part == layout.denoiser)


def _require_weights(base: Base, part: str, model: Any, *, whole: bool) -> None:
    """Raise `UserError` for a weight of another shape; where ``whole``, for one that is missing too.

    Names of autoencoders and text encoders have changed over the years, and their loaders know the old ones.
    """
    found: dict[str, Shape] = {}
    for path in components.weights_of(base.folder, part, base.variant):
        try:
            with checked_safetensors.opened(path) as file:
                found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except ValueError as error:
            raise UserError(f"--base {base.name}: {part}/{path.name} cannot be read ({error})") from None
    found = {key.removeprefix("text_model."): shape for key, shape in found.items()}
    for key, value in model.state_dict().items():
        shape, wanted = found.get(key.removeprefix("text_model.")), tuple(value.shape)
        if shape != wanted and (shape or whole):
            there = f"is {list(shape)}" if shape else "is missing"
            raise UserError(
                f"--base {base.name}: {key} in the weights of {part} {there}, its config says {list(wanted)}"
            )


def match_layers(tensors: Mapping[str, Tensor], pipe: Pipeline) -> tuple[dict[str, Tensor], list[str]]:
    """LoRA under the toolkit's names -> tensors shaped as the pipeline's layers are, names that fit none.

    A layer's tensors fit together or not at all. kohya writes 1x1 convolutions where newer models have
    linear layers, and the other way round: (r, in, 1, 1) and (r, in) are taken for each other.
    """
    fitting: dict[str, Tensor] = {}
    unmatched: list[str] = []
    for module, parts in by_module(tensors).items():
        layer = _layer(pipe, module)
        shaped = _shaped(parts, layer) if layer is not None else None
        if shaped is None:
            unmatched += [f"{module}.{role}".rstrip(".") for role in parts]
        else:
            fitting |= {f"{module}.{role}": value for role, value in shaped.items()}
    return fitting, unmatched


def _layer(pipe: Pipeline, module: str) -> Any:
    """The linear layer or convolution called ``component.path``, or None."""
    component, _, path = module.partition(".")
    model: Any = getattr(pipe, component, None)
    if not path or not hasattr(model, "get_submodule"):
        return None
    try:
        layer = model.get_submodule(path_in(model, path))
    except AttributeError:
        return None
    return getattr(layer, "base_layer", layer)


def weight_of(pipe: Pipeline, module: str) -> Tensor:
    """The base's weight of a module that `place` has found a place for."""
    return _layer(pipe, module).weight


def path_in(model: Any, path: str) -> str:
    """A module's path as ``model`` has it: newer transformers leave out a level that files keep."""
    return path if hasattr(model, "text_model") else path.removeprefix("text_model.")


def _shaped(parts: Mapping[str, Tensor], layer: Any) -> dict[str, Tensor] | None:
    """The tensors of one module in the dimensions of its layer; None when they do not fit it."""
    from torch import nn

    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return None
    size = tuple(layer.weight.shape)
    shaped = {role: _as(value, len(size)) if role in (DOWN, UP) else value for role, value in parts.items()}
    shapes = {role: tuple(value.shape) for role, value in shaped.items()}
    if method_of(shapes) in ("loha", "lokr"):
        return shaped if fits(shapes, size) else None
    ones = (1,) * (len(size) - 2)
    wanted = {
        DOWN: (*shapes.get(DOWN, ())[:1], *size[1:]),
        UP: (size[0], *shapes.get(DOWN, ())[:1], *ones),
        BIAS: (size[0],),
        MAGNITUDE: (1, size[0], 1, 1) if ones else (size[0],),
    }
    return shaped if fits(shapes, size) and all(s == wanted.get(role) for role, s in shapes.items()) else None


def _as(value: Tensor, dimensions: int) -> Tensor:
    """A matrix as a 1x1 convolution or the other way round; anything else unchanged."""
    if value.ndim == 4 and dimensions == 2 and value.shape[2:] == (1, 1):
        return value[:, :, 0, 0]
    return value[:, :, None, None] if value.ndim == 2 and dimensions == 4 else value


def text_width(shapes: Mapping[str, Shape]) -> int | None:
    """Width of the text states, from a cross-attention key or value projection of a UNet."""
    return next(iter(_inputs(shapes, r"unet\..*attn2\.to_[kv]")), None)


def _inputs(shapes: Mapping[str, Shape], pattern: str) -> list[int]:
    """Input widths of the modules of this name."""
    wanted = re.compile(pattern)
    modules = (parts for module, parts in by_module(shapes).items() if wanted.fullmatch(module))
    return [found[1] for parts in modules if (found := _size(parts))]


def _size(parts: Mapping[str, Shape]) -> Shape | None:
    """The size of a layer's weight, by what adds to it; a down matrix alone tells the input."""
    down = parts.get(DOWN, ())
    return (0, *down[1:]) if len(down) > 1 else added(parts)


def family_of_width(width: int) -> str:
    """The family whose UNet takes text states of this width, in words."""
    known = _WIDTHS.get(width)
    return f"{known} (text width {width})" if known else f"a pipeline of text width {width}"


def family(shapes: Mapping[str, Shape]) -> str | None:
    """The family that tensors under the toolkit's names seem made for; None when nothing tells it."""
    if _any(shapes, r"double_blocks|single_blocks|single_transformer_blocks"):
        return "FLUX"
    if _any(shapes, r"^transformer\.transformer_blocks\.\d+\.attn1\."):
        return "Sana"
    if _any(shapes, r"joint_blocks|^transformer\.transformer_blocks\."):
        return "SD 3"
    if width := text_width(shapes):
        return family_of_width(width)
    if _any(shapes, r"^text_encoder_2\.|^unet\..*\.transformer_blocks\.[1-9]"):
        return "SDXL"
    widths = set(_inputs(shapes, r"text_encoder\..*self_attn\.[qkv]_proj"))
    if len(widths) == 1:
        return _WIDTHS.get(widths.pop())
    return "SD 1 or SD 2" if _any(shapes, r"^unet\.(?:down|up)_blocks\.3\.") else None


def _any(names: Iterable[str], pattern: str) -> bool:
    return any(re.search(pattern, name) for name in names)


def family_of_pipeline(pipe: Pipeline) -> str:
    """The family of a loaded pipeline."""
    kind = type(pipe).__name__
    if getattr(pipe, "transformer", None) is not None:
        return "SD 3" if kind.startswith("StableDiffusion3") else kind.removesuffix("Pipeline")
    if getattr(pipe, "text_encoder_2", None) is not None:
        return "SDXL"
    return family_of_width(pipe.unet.config.cross_attention_dim)


def per_block(unet: Any) -> int:
    """Layers a block of a UNet; 2, as in all released ones, when it is none or does not say."""
    found = getattr(getattr(unet, "config", None), "layers_per_block", 2)
    return found if isinstance(found, int) else 2
