"""Every choice of --scheduler on every family, where the samples that are right are known exactly.

The stand-in for a network knows its data: normal numbers of mean `MEAN` and deviation `DEVIATION`. Its exact
probability flow takes a noise n at the last timestep to MEAN + DEVIATION (n - a MEAN) / sqrt(a^2 DEVIATION^2
+ s^2), where a and s are the shares of data and noise there: Song et al. 2021, in closed form for such data.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pipelines
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
)

from generate.sampling.schedulers import FLOW_SCHEDULERS, SCHEDULERS, require_scheduler, scheduler_of
from orchard.bases import bases

MEAN, DEVIATION = 0.8, 1.7
SIZE = (1, 4, 96, 96)
SD = pipelines.NOISE
ZERO_SNR = SD | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
OWN = {
    "sd15": lambda: PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1),
    "sd21": lambda: DDIMScheduler(**SD, clip_sample=False, prediction_type="v_prediction", steps_offset=1),
    "sdxl": lambda: EulerDiscreteScheduler(**SD, timestep_spacing="leading", steps_offset=1),
    "mini": lambda: DPMSolverMultistepScheduler(**ZERO_SNR, timestep_spacing="trailing", steps_offset=1),
    "zero terminal snr": lambda: EulerDiscreteScheduler(**ZERO_SNR),
    # Its betas are what its class has by default, and no other class has.
    "lcm": lambda: LCMScheduler.from_config({}),
    "odd steps": lambda: DPMSolverMultistepScheduler(
        **SD, thresholding=True, final_sigmas_type="sigma_min", use_karras_sigmas=True
    ),
    "sd3": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "sd3 of another shift": lambda: FlowMatchEulerDiscreteScheduler(shift=1.0),
}


def shares(own: Any, timestep: float) -> tuple[float, float]:
    """Of data and noise at a timestep, by numpy; zero terminal SNR as in Lin et al. 2024, algorithm 1."""
    if not hasattr(own, "betas"):
        return 1 - timestep / 1000, timestep / 1000
    roots = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2) ** 0.5
    if own.config.get("rescale_betas_zero_snr"):
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    share = np.interp(timestep, np.arange(1000), roots**2)
    return share**0.5, (1 - share) ** 0.5


def exact(share: float, noise: float, at: torch.Tensor) -> torch.Tensor:
    """Where the probability flow takes what it is at."""
    return MEAN + DEVIATION * (at - share * MEAN) / (share**2 * DEVIATION**2 + noise**2) ** 0.5


def said(own: Any, at: torch.Tensor, timestep: float, *, consistent: bool) -> torch.Tensor:
    """What the stand-in predicts; ``consistent`` as a distilled one, which says where the flow will end."""
    share, noise = shares(own, timestep)
    gain = share * DEVIATION**2 / (share**2 * DEVIATION**2 + noise**2)
    data = exact(share, noise, at) if consistent else MEAN + gain * (at - share * MEAN)
    epsilon = (at - share * data) / noise
    if not hasattr(own, "betas"):
        return epsilon - data
    return epsilon if own.config.prediction_type == "epsilon" else share * epsilon - noise * data


def sampled(own: Any, name: str, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pure noise, and what the scheduler makes of it."""
    flow = not hasattr(own, "betas")
    pipe = SimpleNamespace(scheduler=own) if not flow else SimpleNamespace(scheduler=own, transformer=None)
    scheduler = scheduler_of(name, pipe)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SIZE, generator=generator)
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    options = {"generator": generator} if name in ("euler_a", "lcm") else {}
    for timestep in scheduler.timesteps:
        at = latents if flow else scheduler.scale_model_input(latents, timestep)
        output = said(own, at.double(), float(timestep), consistent=name == "lcm").float()
        latents = scheduler.step(output, timestep, latents, **options).prev_sample
    return noise, latents


CHOICES = [
    (base, name)
    for base in OWN
    for name in (*(FLOW_SCHEDULERS if base.startswith("sd3") else SCHEDULERS), "base")
    if (base, name) not in (("odd steps", "base"), ("lcm", "base"))  # for their own ways of stepping
]


@pytest.mark.parametrize(("base", "name"), CHOICES)
def test_a_long_run_gives_the_samples_that_are_right(base, name):
    own = OWN[base]()
    noise, found = sampled(own, name, 50 if name == "lcm" else 200)
    if name in ("euler_a", "lcm"):  # fresh noise in every step leaves nothing of the first
        assert found.mean().item() == pytest.approx(MEAN, abs=0.03)
        assert found.std().item() == pytest.approx(DEVIATION, rel=0.02)
    else:
        wanted = exact(*shares(own, 999), noise.double())
        assert (found - wanted).abs().max().item() < 0.08
        assert found.std().item() == pytest.approx(wanted.std().item(), rel=0.015)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name not in ("lcm", "euler_a")])
@pytest.mark.parametrize("steps", [20, 150, 334, 600])
def test_no_number_of_steps_begins_before_pure_noise(name, steps):
    """SDXL's own config says `leading`, by which 600 steps begin at timestep 600."""
    noise, found = sampled(OWN["sdxl"](), name, steps)
    wanted = exact(*shares(OWN["sdxl"](), 999), noise.double())
    assert found.mean().item() == pytest.approx(wanted.mean().item(), abs=0.015)


@pytest.mark.parametrize("base", ["sd15", "mini"])
def test_ddim_is_that_of_its_authors(base):
    """Song et al. 2021, equation 12 without noise, at timesteps 999, 949, ..., 49."""
    own, steps = OWN[base](), 20
    own.register_to_config(timestep_spacing="trailing")
    noise, found = sampled(own, "ddim", steps)
    latents, timesteps = noise.double(), [999 - 50 * step for step in range(steps)]
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        share, level = shares(own, timestep)
        gain = share * DEVIATION**2 / (share**2 * DEVIATION**2 + level**2)
        data = MEAN + gain * (latents - share * MEAN)
        then = (1.0, 0.0) if following is None else shares(own, following)
        latents = then[0] * data + then[1] * (latents - share * data) / level
    assert (found - latents).abs().max().item() < 5e-3


def with_scheduler(folder: Path, own: Any) -> bases.Base:
    """An SD 1 base with this scheduler."""
    pipelines.tiny(folder)
    own.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(own).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return bases.resolve(str(folder))


def test_what_a_scheduler_cannot_do_is_refused_before_loading(tmp_path, refused):
    usual = with_scheduler(tmp_path / "a", OWN["sd15"]())
    with refused("--scheduler lcm", "200 steps", "give fewer --steps"):
        require_scheduler("lcm", 200, usual)
    require_scheduler("lcm", 50, usual)
    require_scheduler("base", 200, usual)
    with refused("--scheduler base", "200 steps"):
        require_scheduler("base", 200, with_scheduler(tmp_path / "b", OWN["lcm"]()))
    sample = with_scheduler(tmp_path / "c", DDIMScheduler(**SD, prediction_type="sample"))
    with refused("--scheduler euler_a", "sample"):
        require_scheduler("euler_a", 20, sample)
    require_scheduler("dpmsolver++", 20, sample)


@pytest.mark.parametrize("name", ["lcm", "sd15", "sdxl", "mini"])
def test_training_adds_the_noise_that_the_base_was_trained_with(tmp_path, name):
    from finetune.models.families import family_of

    own = OWN[name]()
    base, pipe = pipelines.load(with_scheduler(tmp_path / "base", own).folder)
    found = family_of(pipe, base).alphas_cumprod
    wanted = [shares(own, timestep)[0] ** 2 for timestep in range(1000)]
    assert np.allclose(found.numpy(), wanted, atol=1e-5)
