"""The tensors that a layer has under each method, and the size of what they add to its weight.

LoRA (Hu et al. 2021) adds up x down. DoRA (Liu et al. 2024) also learns the norm of each row. LoHa
(Hyeon-Woo et al. 2022) multiplies two such products elementwise, LoKr (Yeh et al. 2024) takes the Kronecker
product of two matrices, either of which may be a product itself. Names and shapes are those of peft, which
shares LoHa's and LoKr's with LyCORIS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

Method = Literal["lora", "dora", "loha", "lokr"]
Shape = tuple[int, ...]

DOWN, UP, BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
MID = "lora_mid.weight"
"""LoCon's core of a convolution (Yeh et al. 2024), (r, r, height, width), between down and up of 1x1."""
MAGNITUDE, DORA_SCALE, ALPHA = "lora_magnitude_vector", "dora_scale", "alpha"
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
ROLES = (DOWN, UP, MID, BIAS, MAGNITUDE, DORA_SCALE, ALPHA, *LOHA, *LOKR)
SCALED = frozenset((UP, BIAS, "hada_w1_a", "lokr_w1", "lokr_w1_a"))
"""Tensors that what a layer adds is proportional to, one factor of it each; they can take up its scale."""

T = TypeVar("T")


def split_name(name: str) -> tuple[str, str]:
    """``component.module`` and role of a name; no role when it is not one of the toolkit's."""
    return next(
        ((name.removesuffix(f".{role}"), role) for role in ROLES if name.endswith(f".{role}")), (name, "")
    )


def by_module(named: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Values under the toolkit's names -> module -> role -> value."""
    modules: dict[str, dict[str, T]] = {}
    for name, value in named.items():
        module, role = split_name(name)
        modules.setdefault(module, {})[role] = value
    return modules


def method_of(roles: Iterable[str]) -> Method | None:
    """The method that one layer's tensors are of; None when they are of none."""
    found = set(roles)
    if found & set(LOHA):
        return "loha"
    if found & set(LOKR):
        return "lokr"
    if found & {MAGNITUDE, DORA_SCALE}:
        return "dora"
    return "lora" if found & {DOWN, UP} else None


def methods_of(named: Mapping[str, object]) -> tuple[Method, ...]:
    """The methods of the layers whose tensors have these names, in the order of the alphabet."""
    found = {method_of(parts) for parts in by_module(named).values()}
    return tuple(sorted(method for method in found if method))


def rank(parts: Mapping[str, Shape]) -> int | None:
    """What the alpha of a layer is divided by; None for a LoKr of two whole matrices, which has no scale."""
    for role in (DOWN, "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        shape = parts.get(role, ())
        if len(shape) > 1 and shape[0]:
            return shape[0]
    return None


def added(parts: Mapping[str, Shape]) -> Shape | None:
    """(out, in x height x width) of what a layer's tensors add, or (out, in, height, width) where they say.

    None when the shapes do not go together, or when tensors are missing or too many.
    """
    method = method_of(parts)
    if method == "loha":
        return _loha(parts)
    return _lokr(parts) if method == "lokr" else _lora(parts)


def fits(parts: Mapping[str, Shape], size: Shape) -> bool:
    """Whether a layer's tensors add to a weight of ``size``: (out, in) or (out, in, height, width)."""
    found = added(parts)
    flat = (size[0], math.prod(size[1:]))
    return found in (size, flat) or (found is not None and found[2:] == (1, 1) and found[:2] == flat)


def _lora(parts: Mapping[str, Shape]) -> Shape | None:
    down, up = parts.get(DOWN, ()), parts.get(UP, ())
    if len(down) < 2 or len(up) < 2 or not down[0] or up[1] != down[0]:
        return None
    return (up[0], *down[1:])


def _loha(parts: Mapping[str, Shape]) -> Shape | None:
    if not parts.keys() <= set(LOHA):
        return None
    first, second = (_product(parts, f"hada_w{n}", f"hada_t{n}") for n in (1, 2))
    return first if first == second else None


def _lokr(parts: Mapping[str, Shape]) -> Shape | None:
    if not parts.keys() <= set(LOKR):
        return None
    left, right = (parts.get(f"lokr_w{n}") or _product(parts, f"lokr_w{n}", f"lokr_t{n}") for n in (1, 2))
    if left is None or right is None or len(left) != 2 or len(right) < 2:
        return None
    return (left[0] * right[0], left[1] * right[1], *right[2:])


def _product(parts: Mapping[str, Shape], factors: str, core: str) -> Shape | None:
    """The size of a x b; with a core (r, r, height, width) of a Tucker decomposition (out, in, h, w)."""
    a, b, core_shape = parts.get(f"{factors}_a", ()), parts.get(f"{factors}_b", ()), parts.get(core)
    if len(a) != 2 or len(b) != 2:
        return None
    if core_shape is None:
        return (a[0], b[1]) if a[1] == b[0] else None
    fits_core = len(core_shape) == 4 and core_shape[:2] == (a[0], b[0])
    return (a[1], b[1], *core_shape[2:]) if fits_core else None
