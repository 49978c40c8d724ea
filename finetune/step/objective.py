"""The training objective: how the loss weighs noise levels, and how often each is drawn."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from finetune.config import TimestepSampling, TrainLora
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
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29

    @classmethod
    def of(cls, config: TrainLora) -> Self:
        """The objective that the options ask for."""
        weighting = config.loss_weighting
        if weighting == "auto":
            weighting = "min_snr" if config.snr_gamma else "none"
        return cls(
            weighting=weighting,
            snr_gamma=config.snr_gamma,
            timestep_sampling=config.timestep_sampling,
            logit_mean=config.logit_mean,
            logit_std=config.logit_std,
            mode_scale=config.mode_scale,
        )

    def weights(self, snr: Tensor, prediction_type: str) -> Tensor:
        """(B,) signal-to-noise ratios -> (B,) weights of a diffusion loss."""
        if self.weighting == "min_snr":
            return loss.snr_weights(snr, self.snr_gamma, prediction_type)
        if self.weighting == "debiased":
            return loss.debiased_weights(snr, prediction_type)
        return torch.ones_like(snr)

    def sigmas(self, times: Tensor) -> Tensor:
        """(B,) uniform in [0, 1) -> (B,) noise levels of flow matching, same dtype."""
        if self.timestep_sampling == "logit_normal":
            return loss.logit_normal(times, self.logit_mean, self.logit_std)
        if self.timestep_sampling == "mode":
            return loss.mode(times, self.mode_scale)
        return loss.cosmap(times) if self.timestep_sampling == "cosmap" else times


UNWEIGHTED = Objective()
"""All noise levels weigh the same: the validation loss, whatever a run minimises."""


def require_compatible(config: TrainLora, base: Base) -> None:
    """Raise `UserError` when an option of the objective has no meaning for the base's family."""
    if base.prediction_type == FLOW:
        cli.check(
            config.loss_weighting in ("auto", "none"),
            f"--loss_weighting {config.loss_weighting}: --base {base.name} is trained by flow matching, "
            "where all noise levels weigh the same; use --timestep_sampling to draw some more often",
        )
    else:
        cli.check(
            config.timestep_sampling == "logit_normal",
            f"--timestep_sampling {config.timestep_sampling}: for flow matching (SD 3); --base {base.name} "
            f"({base.prediction_type}) draws timesteps uniformly; use --loss_weighting to weigh them",
        )
