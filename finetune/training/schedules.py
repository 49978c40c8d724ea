"""Learning-rate schedules, under the names that diffusers has for them."""

import math

from finetune.options import Optimization
from finetune.training.optimizers import KINDS

WARM_UP = 0.05
"""Share of the steps, where no number of them is given."""


def learning_rate(step: int, options: Optimization) -> float:
    """The rate that step number ``step``, from 0 on, is taken with; of a resolved ``learning_rate``.

    Formulas of diffusers' `get_scheduler`, but that the warm-up begins above 0 and not at it, one step ahead:
    there the first step changes nothing.
    """
    peak, warm = options.learning_rate, _warm_up(options)
    if step < warm:
        return peak * (step + 1) / warm
    done, whole = step - warm, max(1, options.steps - warm)
    scheduler = options.lr_scheduler if KINDS[options.optimizer].scheduled else "constant"
    if scheduler == "constant":
        return peak
    if scheduler == "linear":
        return peak * (whole - done) / whole
    if scheduler == "cosine_with_restarts":
        done = options.lr_num_cycles * done % whole
    return peak * 0.5 * (1 + math.cos(math.pi * done / whole))


def _warm_up(options: Optimization) -> int:
    """Steps over which the rate rises."""
    if options.lr_warmup_steps is None:
        return max(1, round(WARM_UP * options.steps))
    return options.lr_warmup_steps
