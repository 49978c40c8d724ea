"""Optimisers by name: AdamW from torch, the others from their own packages when those are installed."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune.options import Optimization
from orchard.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Where an optimiser comes from and how its learning rate is set."""

    module: str
    name: str
    package: str = ""
    """Its name for pip; empty for torch's own."""
    options: dict[str, Any] = field(default_factory=dict)
    scheduled: bool = True
    """Whether the learning rate follows `--lr_scheduler`; schedule-free ones keep it after the warm-up."""
    finds_scale: bool = False
    """Whether it estimates the step size itself, so that the learning rate is a factor near 1."""
    state_per_weight: int = 2
    """Float32 numbers of state per weight, rounded up."""


KINDS = {
    "adamw": Kind(module="torch.optim", name="AdamW", options={"fused": True}),
    "adamw8bit": Kind(
        module="bitsandbytes.optim",
        name="AdamW8bit",
        package="bitsandbytes",
        state_per_weight=1,
    ),
    "prodigy": Kind(
        module="prodigyopt",
        name="Prodigy",
        package="prodigyopt",
        options={"use_bias_correction": True, "safeguard_warmup": True},
        finds_scale=True,
        state_per_weight=4,
    ),
    "schedulefree": Kind(
        module="schedulefree",
        name="AdamWScheduleFree",
        package="schedulefree",
        scheduled=False,
    ),
}
SMALLEST_FACTOR = 0.1
RELATIVE_RATE = "relative"
"""Key of a parameter group: its learning rate as a multiple of the run's."""


def optimizer_class(name: str, learning_rate: float) -> Any:
    """The optimiser's class; a learning rate of 0 is left to it.

    Raises:
        UserError: its package is not installed, or the learning rate is not of its kind.
    """
    kind = KINDS[name]
    if kind.finds_scale and 0 < learning_rate < SMALLEST_FACTOR:
        raise UserError(
            f"--optimizer {name}: finds the step size itself, --learning_rate {learning_rate:g} would shrink "
            "it; give --learning_rate 1"
        )
    try:
        return getattr(importlib.import_module(kind.module), kind.name)
    except ImportError as error:
        raise UserError(f"--optimizer {name}: needs `pip install {kind.package}` ({error})") from None


def build(
    options: Optimization, parameters: Sequence[torch.nn.Parameter] | Sequence[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimiser of a run over ``parameters``, or groups of them; errors as `optimizer_class`."""
    name, rate = options.optimizer, options.learning_rate
    shared = {"lr": rate, "weight_decay": options.weight_decay, "betas": options.betas}
    with contextlib.redirect_stdout(io.StringIO()):  # prodigyopt prints its settings
        return optimizer_class(name, rate)(parameters, **shared, **KINDS[name].options)


def set_mode(optimizer: Any, *, training: bool) -> None:
    """Switch the weights of a schedule-free optimiser to training, or to inference."""
    change = getattr(optimizer, "train" if training else "eval", None)
    if change is not None:
        change()
