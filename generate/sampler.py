"""Rows -> images through the stock pipeline, lazily; one generator an image, every batch full."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from generate.plan import Row, batches
from orchard import text
from orchard.bases import FLOW, Base
from orchard.errors import UserError

SCHEDULERS = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}
# DPM-Solver rounds flow timesteps to integers; with many more steps than these the first two fall together.
FLOW_SOLVER_STEPS = 200
FLOW_SCHEDULERS = {"dpmsolver++": "DPMSolverMultistepScheduler", "euler": "FlowMatchEulerDiscreteScheduler"}


def require_scheduler(name: str, steps: int, base: Base) -> None:
    """Raise `UserError` when the scheduler cannot sample from the base in that many steps."""
    if base.prediction_type != FLOW:
        return
    if name == "dpmsolver++" and steps > FLOW_SOLVER_STEPS:
        raise UserError(
            f"--steps {steps}: dpmsolver++ on --base {base.name} takes 1 to {FLOW_SOLVER_STEPS}; "
            "give fewer or --scheduler euler"
        )
    if name not in (*FLOW_SCHEDULERS, "base"):
        raise UserError(
            f"--scheduler {name}: not for flow matching, which --base {base.name} needs; "
            f"give {', '.join(FLOW_SCHEDULERS)} or base"
        )


def _scheduler(name: str, pipe: Any) -> Any:
    """The scheduler ``name`` with the noise schedule that the pipeline's own has."""
    import diffusers

    config = pipe.scheduler.config
    if not hasattr(pipe, "transformer"):
        return getattr(diffusers, SCHEDULERS[name]).from_config(config)
    changes: dict[str, Any] = {}
    if name == "dpmsolver++":
        changes = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config.shift}
    return getattr(diffusers, FLOW_SCHEDULERS[name]).from_config(config, **changes)


class Sampler:
    """A pipeline with its scheduler set, and the text states of each prompt encoded once."""

    def __init__(self, pipe: Any, *, scheduler: str, steps: int, guidance: float, batch_size: int) -> None:
        self.pipe, self.steps, self.guidance, self.batch_size = pipe, steps, guidance, batch_size
        self.states: dict[str, dict[str, torch.Tensor]] = {}
        if scheduler != "base":
            pipe.scheduler = _scheduler(scheduler, pipe)

    def sample(self, rows: Sequence[Row], prompt: str) -> Iterator[Image.Image]:
        """One image a row, in order."""
        for block in batches(rows, self.batch_size):
            yield from self._batch(block, prompt)

    @torch.no_grad()
    def _batch(self, rows: Sequence[Row], prompt: str) -> list[Image.Image]:
        # Short batches are filled up with their last row: equal shapes give equal pixels.
        filled = [*rows, *[rows[-1]] * (self.batch_size - len(rows))]
        if prompt not in self.states:
            self.states[prompt] = text.encode(self.pipe, [prompt], negative=True)
        images = self.pipe(
            **{
                name: state.expand(len(filled), *state.shape[1:])
                for name, state in self.states[prompt].items()
            },
            generator=[torch.Generator().manual_seed(row.seed) for row in filled],
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
        ).images[: len(rows)]
        for row, image in zip(rows, images, strict=True):
            if image.getextrema() == ((0, 0),) * 3:
                raise UserError(
                    f"{row.label} image {row.index} came out all black; try --precision fp32 "
                    "or another --scheduler"
                )
        return images
