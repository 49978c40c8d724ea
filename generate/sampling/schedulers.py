"""Schedulers by name, with the noise schedule of the base they sample from."""

from typing import Any

import torch

from orchard.bases import bases
from orchard.bases.bases import FLOW, Base
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError, one_line

SCHEDULERS = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    # DDIM is its first order (Lu et al. 2022, section 4.1). diffusers' own clips latents unless told not to,
    # and takes wrong steps wherever their number does not divide that of training.
    "ddim": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
FLOW_SCHEDULERS = {"dpmsolver++": "DPMSolverMultistepScheduler", "euler": "FlowMatchEulerDiscreteScheduler"}


def require_scheduler(name: str, steps: int, base: Base) -> None:
    """Raise `UserError` when the scheduler cannot sample from the base in that many steps."""
    flow = base.prediction_type == FLOW
    if flow and name not in (*FLOW_SCHEDULERS, "base"):
        raise UserError(
            f"--scheduler {name}: not for flow matching, which --base {base.name} needs; "
            f"give {', '.join(FLOW_SCHEDULERS)} or base"
        )
    try:
        scheduler = _named(name, bases.scheduler(base), flow=flow)
        options = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}
        scheduler.set_timesteps(steps, **options)
        scheduler.step(torch.zeros(1, 4, 1, 1), scheduler.timesteps[0], torch.zeros(1, 4, 1, 1))
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"--scheduler {name}: cannot sample from --base {base.name} in {steps} steps "
            f"({one_line(error)}); give fewer --steps or another --scheduler"
        ) from None
    # It rounds the timesteps of flow matching to integers.
    if flow and name == "dpmsolver++" and len(scheduler.timesteps.unique()) < steps:
        raise UserError(
            f"--steps {steps}: too many for dpmsolver++ on --base {base.name}, some fall together; "
            "give fewer or --scheduler euler"
        )


def scheduler_of(name: str, pipe: Pipeline) -> Any:
    """The scheduler ``name`` for the pipeline; ``base`` is the one it has."""
    return _named(name, pipe.scheduler, flow=hasattr(pipe, "transformer"))


def _named(name: str, own: Any, *, flow: bool) -> Any:
    if name == "base":
        return own
    return _of_flow(name, own.config) if flow else _of_diffusion(name, own.config)


def _of_diffusion(name: str, config: Any) -> Any:
    import diffusers

    kind = getattr(diffusers, SCHEDULERS[name])
    options = bases.noise_of(config)
    if name == "ddim":
        options["solver_order"] = 1
    given = set(config) - set(config.get("_use_default_values", ()))
    spacing = (config if "timestep_spacing" in given else kind(**options).config)["timestep_spacing"]
    # Samples start from pure noise, which only the last timestep means; `leading` begins before it, in many
    # steps long before.
    return kind(**options, timestep_spacing="trailing" if spacing == "leading" else spacing)


def _of_flow(name: str, config: Any) -> Any:
    import diffusers

    kind = getattr(diffusers, FLOW_SCHEDULERS[name])
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if name == "euler":
        return kind.from_config(config, shift=shift)
    found = kind(
        num_train_timesteps=config["num_train_timesteps"],
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        flow_shift=shift,
    )
    # How SD 3 asks for the noise that a guiding image starts with; the solver knows it by another name.
    found.scale_noise = lambda sample, timestep, noise: found.add_noise(sample, noise, timestep)
    return found
