"""Schedulers by name, with the noise schedule of the base they sample from."""

from typing import Any

from orchard.bases import FLOW, Base
from orchard.errors import UserError

SCHEDULERS = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
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


def scheduler_of(name: str, pipe: Any) -> Any:
    """The scheduler ``name`` for the pipeline; ``base`` is the one it has."""
    import diffusers

    config = pipe.scheduler.config
    if name == "base":
        return pipe.scheduler
    if not hasattr(pipe, "transformer"):
        return getattr(diffusers, SCHEDULERS[name]).from_config(config)
    changes: dict[str, Any] = {}
    if name == "dpmsolver++":
        changes = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config.shift}
    found = getattr(diffusers, FLOW_SCHEDULERS[name]).from_config(config, **changes)
    if not hasattr(found, "scale_noise"):
        # How SD 3 asks for the noise that a guiding image starts with; the solver knows it by another name.
        found.scale_noise = lambda sample, timestep, noise: found.add_noise(sample, noise, timestep)
    return found
