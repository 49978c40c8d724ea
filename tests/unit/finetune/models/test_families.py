"""SD 1, SD with v, SDXL, SD 3 and Sana: encoded, trained, saved, loaded by the stock pipeline."""

import inspect
import math
import statistics

import numpy as np
import pipelines
import pytest
import torch
from peft.utils import get_peft_model_state_dict

from finetune.models import lora
from finetune.models.families import StableDiffusion3, StableDiffusionXL, family_of
from finetune.models.family import Network
from finetune.step.batches import Batch, draw
from finetune.step.loss import diffuse, flow_target, interpolate, logit_normal, timesteps_of
from finetune.step.objective import UNWEIGHTED

CPU = torch.device("cpu")
PROMPT = "a photo of apple"


def photos(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def image(pipe) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    options = {"num_inference_steps": 3, "output_type": "np", **pipelines.sized(pipe)}
    return pipe(PROMPT, generator=generator, **options).images[0]


def hand_made(family, times: list[float]) -> Batch:
    """A batch of random latents at chosen times."""
    generator = torch.Generator().manual_seed(0)
    states = family.encode_prompts([PROMPT])
    latents, noise = torch.randn(2, len(times), 4, 16, 16, generator=generator)
    return Batch(
        latents=latents,
        noise=noise,
        times=torch.tensor(times, dtype=torch.float64),
        prompts={name: state.expand(len(times), *state.shape[1:]) for name, state in states.items()},
        rows=[0] * len(times),
    )


class Recorder:
    """A denoiser that notes what it is asked and says what it is told to."""

    def __init__(self, answer: torch.Tensor) -> None:
        self.answer = answer

    def __call__(self, *arguments, **options):
        self.arguments, self.options = arguments, options
        return (self.answer,)


def test_uniform_times_become_uniform_timesteps():
    times = torch.tensor([0.0, 0.0009999, 0.001, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert timesteps_of(times, 1000).tolist() == [0, 0, 1, 500, 999]


def test_noise_levels_are_logit_normal():
    times = [0.0, 0.01, 0.3, 0.5, 0.975]
    normal = statistics.NormalDist()
    expected = [0.0, *(1 / (1 + math.exp(-normal.inv_cdf(u))) for u in times[1:])]
    assert logit_normal(torch.tensor(times, dtype=torch.float64)).tolist() == pytest.approx(expected)


def test_the_flow_target_is_the_speed_of_the_path():
    latents, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64).unbind()
    sigmas = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    assert torch.equal(interpolate(latents, noise, torch.zeros(3)), latents)
    assert torch.equal(interpolate(latents, noise, torch.ones(3)), noise)
    ahead, behind = (interpolate(latents, noise, sigmas + step) for step in (1e-3, -1e-3))
    assert torch.allclose((ahead - behind) / 2e-3, flow_target(latents, noise))


def test_noise_is_added_as_the_stock_scheduler_adds_it():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**pipelines.NOISE)
    latents, noise = torch.randn(2, 3, 4, 8, 8).unbind()
    timesteps = torch.tensor([0, 500, 999])
    ours = diffuse(latents, noise, scheduler.alphas_cumprod[timesteps])
    assert torch.allclose(ours, scheduler.add_noise(latents, noise, timesteps), atol=1e-6)


@pytest.mark.parametrize("name", pipelines.TINY)
def test_a_step_lowers_the_loss_on_its_batch(folders, name):
    base, pipe = pipelines.load(folders[name])
    family = family_of(pipe, base)
    cache = family.encode(photos(), [PROMPT, "a photo of pear"])
    parameters = lora.inject(family.denoiser, 4, 4, 0)
    batch = draw(cache, 0, batch_size=8, seed=0, flip=True)
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    before = family.loss(Network(family), batch, UNWEIGHTED)
    before.backward()
    assert all(parameter.grad is not None for parameter in parameters)
    optimizer.step()
    after = family.loss(Network(family), batch, UNWEIGHTED)
    assert after.item() < before.item()


@pytest.mark.parametrize("name", pipelines.TINY)
def test_the_stock_pipeline_gives_our_image_from_the_saved_lora(tmp_path, folders, name):
    base, ours = pipelines.load(folders[name])
    family = family_of(ours, base)
    plain = image(ours)
    for parameter in lora.inject(family.denoiser, 4, 4, 0):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    mine = image(ours)
    layers = get_peft_model_state_dict(family.denoiser)
    type(ours).save_lora_weights(tmp_path, **{f"{family.prefix}_lora_layers": layers})

    _, stock = pipelines.load(folders[name])
    stock.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    assert np.abs(mine - plain).max() > 1e-2
    assert np.abs(mine - image(stock)).max() < 1e-4


def test_every_attention_layer_of_a_denoiser_gets_a_lora(folders):
    for name in pipelines.TINY:
        base, pipe = pipelines.load(folders[name])
        family = family_of(pipe, base)
        layers = [n for n, m in family.denoiser.named_modules() if isinstance(m, torch.nn.Linear)]
        attention = {n for n in layers if ".attn" in n}
        lora.inject(family.denoiser, 4, 4, 0)
        found = {n for n, m in family.denoiser.named_modules() if hasattr(m, "lora_A")}
        assert found == attention, name


def test_latents_are_what_the_pipeline_would_decode(folders):
    for name in pipelines.TINY:
        base, pipe = pipelines.load(folders[name])
        cache = family_of(pipe, base).encode(photos(), [PROMPT] * 2)
        stock = pipe.image_processor.preprocess((photos()[0] / 255).astype(np.float32))
        found = pipe.vae.encode(torch.cat([stock, stock.flip(-1)]))
        # The autoencoder of Sana knows no distribution.
        mean, std = (found.latent, 0) if name == "sana" else (found.latent_dist.mean, found.latent_dist.std)
        # As the stock pipelines undo it before decoding.
        ours, scale, shift = (
            cache.images[0],
            pipe.vae.config.scaling_factor,
            pipe.vae.config.get("shift_factor"),
        )
        undone = ours.mean / scale + (shift or 0)
        assert torch.allclose(undone, mean, atol=1e-5), name
        spread = ours.std / scale
        assert torch.allclose(spread, torch.zeros_like(spread) + std, atol=1e-5), name


def test_each_image_keeps_its_own_prompt(folders):
    for name in pipelines.TINY:
        base, pipe = pipelines.load(folders[name])
        cache = family_of(pipe, base).encode(photos(3), ["pear", "apple", "pear"])
        assert cache.prompt_of.tolist() == [1, 0, 1]
        if name == "sana":
            # With the instruction that a stock call has by default.
            default = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
            extra = {"complex_human_instruction": default}
        else:
            extra = {"prompt_2": None, "prompt_3": None} if "sd3" in name else {}
        states = pipe.encode_prompt(
            "pear", device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False, **extra
        )
        assert torch.allclose(cache.prompts[1]["prompt_embeds"], states[0][0], atol=1e-5)
        if name == "sana":
            assert cache.prompts[1]["prompt_attention_mask"].tolist() == states[1][0].tolist()
            assert cache.prompts[0]["prompt_attention_mask"].sum() == states[1].sum() + 1
        elif len(states) > 2:
            assert torch.allclose(cache.prompts[1]["pooled_prompt_embeds"], states[2][0], atol=1e-5)


def test_a_half_precision_autoencoder_that_overflows_encodes_in_float32(folders):
    base, pipe = pipelines.load(folders["sdxl"])
    pipe.vae.half()
    rounded = family_of(pipe, base).encode(photos(), [PROMPT] * 2).images
    assert pipe.vae.dtype == torch.float16
    pipe.vae.float()
    whole = family_of(pipe, base).encode(photos(), [PROMPT] * 2).images
    assert all(torch.equal(one.mean, other.mean) for one, other in zip(whole, rounded, strict=True))


def test_sdxl_is_told_the_sizes_that_the_pipeline_tells_it(folders):
    base, pipe = pipelines.load(folders["sdxl"])
    family = family_of(pipe, base)
    assert isinstance(family, StableDiffusionXL)
    batch = hand_made(family, [0.1, 0.9])
    denoiser = Recorder(batch.noise)
    assert family.loss(Network(family, denoiser), batch, UNWEIGHTED).item() == 0
    added = denoiser.options["added_cond_kwargs"]
    assert added["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 2
    assert torch.equal(added["text_embeds"], batch.prompts["pooled_prompt_embeds"])
    assert denoiser.arguments[1].tolist() == [100, 900]


def test_sd3_is_asked_at_its_noise_level_and_should_say_noise_less_latents(folders):
    base, pipe = pipelines.load(folders["sd3"])
    family = family_of(pipe, base)
    assert isinstance(family, StableDiffusion3)
    batch = hand_made(family, [0.5, 0.975])
    denoiser = Recorder(batch.noise - batch.latents)
    assert family.loss(Network(family, denoiser), batch, UNWEIGHTED).item() == 0
    sigmas = [0.5, 1 / (1 + math.exp(-statistics.NormalDist().inv_cdf(0.975)))]
    assert denoiser.options["timestep"].tolist() == pytest.approx([1000 * s for s in sigmas], rel=1e-5)
    for k, sigma in enumerate(sigmas):
        expected = batch.latents[k] * (1 - sigma) + batch.noise[k] * sigma
        assert torch.allclose(denoiser.arguments[0][k], expected, atol=1e-5)


def test_sd3_weighs_every_noise_level_alike(folders):
    base, pipe = pipelines.load(folders["sd3"])
    family = family_of(pipe, base)
    batch = hand_made(family, [0.2, 0.9])
    off = torch.ones_like(batch.latents)
    off[1] = 2
    denoiser = Recorder(batch.noise - batch.latents + off)
    assert family.loss(Network(family, denoiser), batch, UNWEIGHTED).item() == pytest.approx(
        (1 + 4) / 2, rel=1e-5
    )
