"""The training objective: how the loss weighs noise levels, and how often each is drawn."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from finetune.options import Loss, TimestepSampling
from finetune.step import loss
from orchard.bases.bases import FLOW, Base
from orchard.cli import cli


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The part of the options that the loss of a batch depends on."""

    weighting: str = "none"
    """``min_snr``, ``debiased`` or ``none``; flow matching has none."""
    snr_gamma: float = 5.0
    timestep_sampling: TimestepSampling = "logit_normal"
    """For flow matching; the timesteps of diffusion are uniform."""
    shift: float = 1.0
    """Of the noise levels of flow matching, as `loss.shifted` has it."""

    @classmethod
    def of(cls, options: Loss) -> Self:
        """The objective that the options ask for."""
        weighting = options.loss_weighting
        if weighting == "auto":
            weighting = "min_snr" if options.snr_gamma else "none"
        return cls(
            weighting=weighting,
            snr_gamma=options.snr_gamma,
            timestep_sampling=options.timestep_sampling,
            shift=options.shift,
        )

    def weights(self, snr: Tensor, prediction_type: str) -> Tensor:
        """(B,) signal-to-noise ratios -> (B,) weights of a diffusion loss."""
        if self.weighting == "min_snr":
            return loss.snr_weights(snr, self.snr_gamma, prediction_type)
        if self.weighting == "debiased":
            return loss.debiased_weights(snr, prediction_type)
        assert self.weighting == "none", self.weighting
        return torch.ones_like(snr)

    def sigmas(self, times: Tensor) -> Tensor:
        """(B,) uniform in [0, 1) -> (B,) noise levels of flow matching, same dtype."""
        drawn = {"logit_normal": loss.logit_normal, "mode": loss.mode, "cosmap": loss.cosmap}
        how = drawn.get(self.timestep_sampling)
        assert how or self.timestep_sampling == "uniform", self.timestep_sampling
        return loss.shifted(how(times) if how else times, self.shift)


UNWEIGHTED = Objective()
"""All noise levels weigh the same: the validation loss, whatever a run minimises."""


def require_compatible(options: Loss, base: Base) -> None:
    """Raise `UserError` when an option of the objective has no meaning for the base's family."""
    if base.prediction_type == FLOW:
        cli.check(
            options.loss_weighting in ("auto", "none"),
            f"--loss_weighting {options.loss_weighting}: --base {base.name} is trained by flow matching, "
            "where all noise levels weigh the same; use --timestep_sampling to draw some more often",
        )
    else:
        kind = f"--base {base.name} ({base.prediction_type})"
        cli.check(
            options.timestep_sampling == "logit_normal",
            f"--timestep_sampling {options.timestep_sampling}: for flow matching (SD 3); {kind} draws "
            "timesteps uniformly; use --loss_weighting to weigh them",
        )
        cli.check(
            options.shift in (0, 1),
            f"--shift {options.shift:g}: for flow matching (SD 3); {kind} has no such noise levels",
        )
