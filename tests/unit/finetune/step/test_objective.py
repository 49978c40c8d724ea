"""What a run minimises: loss weights, noise offsets and noise levels, against values computed by hand."""

import math
import statistics

import encoded_photos
import pipelines
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from finetune.config import TrainLora
from finetune.models.families import family_of
from finetune.models.family import Network
from finetune.step import objective
from finetune.step.batches import draw
from finetune.step.loss import (
    cosmap,
    debiased_weights,
    logit_normal,
    mode,
    offset_noise,
    shifted,
    snr,
    target,
)
from finetune.step.objective import Objective
from orchard.bases import bases

NORMAL = statistics.NormalDist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("epsilon", [1 / 3, 1.0, 2.0, 0.0]),
        ("v_prediction", [3 / 10, 1 / 2, 0.4, 0.0]),
        ("sample", [3, 1, 0.5, 0]),
    ],
)
def test_debiased_weights_follow_the_paper(kind, expected):
    weights = debiased_weights(torch.tensor([9.0, 1.0, 0.25, 0.0]), kind)
    assert weights.tolist() == pytest.approx(expected)


def test_debiased_weights_weigh_the_same_error_of_the_latents_alike():
    """An error e of the latents is sqrt(snr) e in epsilon and sqrt(snr + 1) e in v."""
    ratios = torch.tensor([0.01, 0.5, 30.0])
    sample = debiased_weights(ratios, "sample")
    assert torch.allclose(debiased_weights(ratios, "epsilon") * ratios, sample)
    assert torch.allclose(debiased_weights(ratios, "v_prediction") * (ratios + 1), sample)


def test_a_noise_offset_shifts_whole_channels():
    noise, shifts = torch.randn(2, 3, 4, 4), torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 3.0]])
    shifted = offset_noise(noise, shifts, 0.1) - noise
    assert torch.allclose(shifted[0, 1], torch.full((4, 4), -0.2), atol=1e-6)
    assert torch.allclose(shifted[1, 2], torch.full((4, 4), 0.3), atol=1e-6)
    assert torch.equal(offset_noise(noise, shifts, 0.0), noise)


def test_a_draw_with_an_offset_has_the_noise_of_one_without_plus_a_constant_a_channel():
    cache = encoded_photos.dataset(
        mean=torch.zeros(2, 5, 4, 8, 8),
        std=torch.ones(2, 5, 4, 8, 8),
        prompts={"prompt_embeds": torch.zeros(1, 2, 3)},
        prompt_of=torch.zeros(5, dtype=torch.long),
    )
    options = {"batch_size": 4, "seed": 0, "flip": True}
    plain, shifted = draw(cache, 3, **options), draw(cache, 3, **options, noise_offset=0.5)
    assert torch.equal(plain.latents, shifted.latents) and torch.equal(plain.times, shifted.times)
    difference = (shifted.noise - plain.noise).flatten(2)
    assert difference.std(2).max() < 1e-6
    assert 0.2 < difference.mean(2).std() < 0.9
    halves = [draw(cache, 3, **options, noise_offset=0.5, part=part, parts=2) for part in (0, 1)]
    assert torch.equal(torch.stack([half.noise for half in halves], 1).flatten(0, 1), shifted.noise)


def test_the_logit_of_noise_levels_is_standard_normal_and_a_shift_moves_it_by_its_logarithm():
    times = [0.01, 0.3, 0.5, 0.975]
    expected = [1 / (1 + math.exp(-(math.log(3) + NORMAL.inv_cdf(u)))) for u in times]
    found = shifted(logit_normal(torch.tensor(times, dtype=torch.float64)), 3.0)
    assert found.tolist() == pytest.approx(expected)


def test_a_shift_is_that_of_the_scheduler_of_sd_3():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    plain = torch.arange(1000, 0, -1) / 1000
    assert torch.allclose(shifted(plain, 3.0), scheduler.sigmas[:1000], atol=1e-6)
    assert torch.equal(shifted(plain, 1.0), plain)


def test_mode_sampling_follows_the_paper():
    # cos(pi/4)^2 = 1/2 and cos(pi/6)^2 = 3/4.
    times = torch.tensor([0.0, 1 / 3, 0.5, 1.0], dtype=torch.float64)
    assert mode(times).tolist() == pytest.approx([1, 2 / 3 - 1.29 / 12, 0.5, 0])
    dense = mode(torch.linspace(0, 1, 10001, dtype=torch.float64))
    assert (dense.diff() < 0).all()
    assert ((dense - 0.5).abs() < 0.1).double().mean() > 0.2


def test_cosmap_has_the_density_of_the_paper():
    levels = cosmap((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    counts = torch.histc(levels, bins=10, min=0, max=1) / len(levels)
    centres = (torch.arange(10, dtype=torch.float64) + 0.5) / 10
    density = 2 / (math.pi - 2 * math.pi * centres + 2 * math.pi * centres**2)
    assert torch.allclose(counts * 10, density, rtol=0.01)


def test_the_options_choose_the_weights():
    ratios = torch.tensor([9.0, 1.0])

    def weights(**options) -> list[float]:
        return Objective.of(TrainLora(**options)).weights(ratios, "epsilon").tolist()

    assert weights() == pytest.approx([5 / 9, 1])
    assert weights(loss_weighting="min_snr", snr_gamma=3.0) == pytest.approx([3 / 9, 1])
    assert weights(snr_gamma=0.0) == weights(loss_weighting="none") == [1, 1]
    assert weights(loss_weighting="debiased") == pytest.approx([1 / 3, 1])


def test_the_options_choose_the_noise_levels():
    times = torch.tensor([0.25], dtype=torch.float64)

    def level(**options) -> float:
        return Objective.of(TrainLora(**{"shift": 1.0, **options})).sigmas(times).item()

    assert level() == pytest.approx(1 / (1 + math.exp(-NORMAL.inv_cdf(0.25))))
    assert level(timestep_sampling="uniform") == 0.25
    assert level(timestep_sampling="uniform", shift=3.0) == 0.5
    assert level(timestep_sampling="mode") == pytest.approx(0.75 - 1.29 * (math.cos(math.pi / 8) ** 2 - 0.75))
    assert level(timestep_sampling="cosmap") == pytest.approx(1 - 1 / (math.tan(math.pi / 8) + 1))


CONTRADICTIONS = [
    ({"loss_weighting": "debiased", "snr_gamma": 3.0}, ("--snr_gamma 3", "--loss_weighting debiased")),
    ({"loss_weighting": "min_snr", "snr_gamma": 0.0}, ("--loss_weighting min_snr", "--snr_gamma above 0")),
    ({"ema_decay": 1.0}, ("--ema_decay 1.0", "less than 1")),
    ({"ema_decay": 0.9, "optimizer": "schedulefree"}, ("--ema_decay 0.9", "schedulefree")),
    ({"accumulation": -1}, ("--accumulation -1", "0 or more")),
    ({"noise_offset": -0.1}, ("--noise_offset -0.1",)),
    ({"shift": 0.001}, ("--shift 0.001", "0.01 to 100")),
]


@pytest.mark.parametrize(("options", "words"), CONTRADICTIONS)
def test_what_contradicts_itself_is_refused(refused, options, words):
    with refused(*words):
        TrainLora(**options).require_valid()


def test_what_the_family_does_not_know_is_refused(tmp_path, refused):
    diffusion = bases.resolve(str(pipelines.tiny(tmp_path / "sd")))
    flow = bases.resolve(str(pipelines.tiny_sd3(tmp_path / "sd3")))
    with refused("--timestep_sampling mode", "--loss_weighting"):
        objective.require_compatible(TrainLora(timestep_sampling="mode"), diffusion)
    with refused("--shift 3", "flow matching"):
        objective.require_compatible(TrainLora(shift=3.0), diffusion)
    with refused("--loss_weighting debiased", "--timestep_sampling"):
        objective.require_compatible(TrainLora(loss_weighting="debiased"), flow)
    objective.require_compatible(TrainLora(loss_weighting="debiased"), diffusion)
    objective.require_compatible(TrainLora(timestep_sampling="mode"), flow)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("weighting", ["min_snr", "debiased", "none"])
def test_a_base_whose_schedule_ends_in_pure_noise_is_trained_on_it(tmp_path, kind, weighting):
    """Lin et al. 2023: the last timestep has no signal, and v is minus the latents there."""
    folder = pipelines.tiny(tmp_path, prediction_type=kind)
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, torch.device("cpu"))
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    family = family_of(pipe, base)
    last = torch.tensor([len(family.alphas_cumprod) - 1])
    assert snr(family.alphas_cumprod, last).item() == 0
    latents, noise = torch.randn(2, 1, 4, 16, 16).unbind()
    assert torch.equal(target("v_prediction", latents, noise, torch.zeros(1)), -latents)
    cache = encoded_photos.dataset(
        mean=[latents.expand(2, 4, 16, 16)],
        std=[torch.zeros(2, 4, 16, 16)],
        prompts=family.encode_prompts(["a photo of apple"]),
        prompt_of=torch.zeros(1, dtype=torch.long),
    )
    batch = draw(cache, 0, batch_size=2, seed=0, flip=False)
    batch.times.fill_(0.99999)
    with torch.no_grad():
        assert family.loss(Network(family), batch, Objective(weighting=weighting)).isfinite()


def test_a_schedule_that_is_not_rescaled_keeps_some_signal():
    alphas = DDPMScheduler(**pipelines.NOISE).alphas_cumprod
    assert 0 < snr(alphas, torch.tensor([999])).item() < 0.01
