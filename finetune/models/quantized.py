"""A frozen denoiser with its linear layers in 8 or 4 bits, for a LoRA on top (QLoRA, Dettmers et al. 2023).

By the layers of bitsandbytes, put in here: diffusers' own way to them takes no single file, and wants a GPU
even where bitsandbytes computes on a CPU too.
"""

import importlib
from typing import Any

from torch import nn

from finetune.options import Quantize
from orchard.errors import UserError

BYTES = {"nf4": 0.5 + 4 / 64, "int8": 1.0}
"""Of a weight. In nf4 blocks of 64 share a float32 scale; in int8 rows do, which is next to nothing."""


def require_package(kind: Quantize) -> None:
    """Raise `UserError` where bitsandbytes is wanted and not there."""
    if kind != "none":
        try:
            importlib.import_module("bitsandbytes")
        except ImportError as error:
            raise UserError(f"--quantize {kind}: needs `pip install bitsandbytes` ({error})") from None


def is_quantized(layer: nn.Module) -> bool:
    """Whether `quantize` replaces a layer."""
    return type(layer) is nn.Linear


def quantize(model: Any, kind: Quantize) -> None:
    """Replace the linear layers of a model on the CPU; the weights are rounded when it goes to a device."""
    names = [name for name, layer in model.named_modules() if is_quantized(layer)]
    for name in names:
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, last, _layer(getattr(owner, last), kind))


def _layer(linear: nn.Linear, kind: Quantize) -> nn.Module:
    import bitsandbytes as bnb

    weight, bias = linear.weight.data, linear.bias
    shape: Any = {"input_features": linear.in_features, "output_features": linear.out_features}
    shape |= {"bias": bias is not None, "device": "meta"}
    if kind == "nf4":
        made: Any = bnb.nn.Linear4bit(**shape, compute_dtype=weight.dtype, quant_type="nf4")
        made.weight = bnb.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=False
        )
    else:
        made = bnb.nn.Linear8bitLt(**shape, has_fp16_weights=False)
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    made.bias = bias
    return made


def size(model: Any, kind: Quantize, bytes_per_weight: int) -> int:
    """Bytes of a model's weights, of a `skeleton` too; ``bytes_per_weight`` where they are not quantised."""
    whole = sum(parameter.numel() for parameter in model.parameters())
    if kind == "none":
        return whole * bytes_per_weight
    rounded = sum(layer.weight.numel() for layer in model.modules() if is_quantized(layer))
    return round((whole - rounded) * bytes_per_weight + rounded * BYTES[kind])
