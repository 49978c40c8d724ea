"""What a base's files say is heeded as the stock pipeline heeds it, or refused at `--dry_run`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pipelines
import plans
import pytest
import single_files
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from finetune.command import train
from finetune.config import TrainLora
from finetune.models.families import family_of
from generate.command import generate
from generate.config import Generate
from orchard.bases import bases

STATISTICS = {"latents_mean": [0.4, -0.6, 0.2, 0.1], "latents_std": [1.5, 0.5, 0.8, 1.2]}
Change = Callable[[Path], None]


def configured(part: str, **values: object) -> Change:
    """A config with other values."""

    def change(folder: Path) -> None:
        path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def indexed(part: str, kind: str | None, library: str = "diffusers") -> Change:
    """A part of another class, or none."""

    def change(folder: Path) -> None:
        path = folder / "model_index.json"
        value = [library, kind] if kind else [None, None]
        path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))

    return change


def garbled(part: str, pattern: str) -> Change:
    """Files that are no JSON."""

    def change(folder: Path) -> None:
        for path in (folder / part).glob(pattern):
            path.write_text("{")

    return change


def cut(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_a_layer(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_out.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def renamed_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("my_unet.safetensors"))


def mixed_variants(folder: Path) -> None:
    for part, variant in (("unet", "fp16"), ("vae", "bf16")):
        path = folder / part / "diffusion_pytorch_model.safetensors"
        path.rename(path.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))


def lost_shard(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))


FAULTS: dict[str, tuple[str, Change, tuple[str, ...]]] = {
    "editing": ("sd", configured("unet", in_channels=8), ("takes 8 channels", "text-to-image")),
    "inpainting of latents of 4": ("sd3", configured("transformer", in_channels=9), ("takes 9 channels",)),
    "variance too": ("sd", configured("unet", out_channels=8), ("gives 8 channels instead of 4",)),
    "latents of 16": ("sd3", configured("vae", latent_channels=16), ("transformer takes 4 channels",)),
    "other text encoder": ("sd", configured("text_encoder", hidden_size=32), ("width 16", "write 32")),
    "half of SDXL's text": ("sdxl", configured("unet", cross_attention_dim=24), ("width 24", "16 + 24")),
    "pooled": ("sdxl", configured("text_encoder_2", projection_dim=16), ("72 pooled values", "make 64")),
    "pooled of SD 3": ("sd3", configured("text_encoder", projection_dim=8), ("40 pooled values", "make 32")),
    "class conditions": ("sd", configured("unet", class_embed_type="timestep"), ("class_embed_type",)),
    "another denoiser": ("sd", indexed("unet", "UNetMotionModel"), ("unet is UNetMotionModel",)),
    "tiny autoencoder": ("sd", indexed("vae", "AutoencoderTiny"), ("vae is AutoencoderTiny", "KL")),
    "no such class": ("sd", indexed("text_encoder", "NoSuch", "transformers"), ("NoSuch", "CLIPText")),
    "no text encoder": ("sdxl", indexed("text_encoder", None), ("names no text_encoder", "XLPipeline")),
    "EDM": ("sdxl", indexed("scheduler", "EDMEulerScheduler"), ("scheduler is EDMEulerScheduler",)),
    "flow on a UNet": ("sd", indexed("scheduler", "FlowMatchEulerDiscreteScheduler"), ("FlowMatchEuler",)),
    "flow sigmas on a UNet": ("sd", configured("scheduler", use_flow_sigmas=True), ("diffusion",)),
    "betas on SD 3": ("sd3", indexed("scheduler", "DDIMScheduler"), ("DDIMScheduler", "flow matching")),
    "betas on Sana": ("sana", configured("scheduler", use_flow_sigmas=False), ("flow matching",)),
    "text of Sana": ("sana", configured("transformer", caption_channels=8), ("width 8", "writes 16")),
    "latents of Sana": ("sana", configured("vae", latent_channels=4), ("takes 8 channels instead of 4",)),
    "guidance in Sana": ("sana", configured("transformer", guidance_embeds=True), ("as a number",)),
    "autoencoder of Sana": ("sana", indexed("vae", "AutoencoderKL"), ("vae is AutoencoderKL", "DC")),
    "flow predicted": ("sd", configured("scheduler", prediction_type="flow"), ("prediction_type",)),
    "logarithms as times": ("sd", configured("scheduler", timestep_type="continuous"), ("continuous",)),
    "unknown betas": ("sd", configured("scheduler", beta_schedule="magic"), ("DDIM", "cannot be made")),
    "statistics on SD 1": ("sd", configured("vae", **STATISTICS), ("latents_mean and latents_std",)),
    "statistics on SD 3": ("sd3", configured("vae", **STATISTICS), ("latents_mean and latents_std",)),
    "half of statistics": ("sdxl", configured("vae", latents_mean=[0.0] * 4), ("has latents_mean, which",)),
    "too few": ("sdxl", configured("vae", latents_mean=[0.0], latents_std=[1.0]), ("for 4 channels",)),
    "no deviation": ("sdxl", configured("vae", **STATISTICS | {"latents_std": [0] * 4}), ("above 0",)),
    "shift on SD 1": ("sd", configured("vae", shift_factor=0.1), ("shift_factor",)),
    "no scale": ("sd", configured("vae", scaling_factor=0), ("scales latents by 0",)),
    "another width": ("sd", configured("unet", block_out_channels=[16, 64]), ("its config says",)),
    "unknown block": ("sd", configured("vae", up_block_types=["A", "B"]), ("vae cannot be made",)),
    "cut weights": ("sd", cut, ("unet/diffusion_pytorch_model.safetensors cannot be read",)),
    "a weight lost": ("sd", without_a_layer, ("conv_out.weight", "is missing")),
    "weights by another name": ("sd", renamed_weights, ("no safetensors weights in unet/",)),
    "a shard lost": ("sd", lost_shard, ("no safetensors weights in unet/",)),
    "two variants": ("sd", mixed_variants, ("no variant in common", "unet/ has fp16", "vae/ has bf16")),
    "config that is none": (
        "sd",
        garbled("text_encoder", "config.json"),
        ("text_encoder/config.json cannot be read",),
    ),
    "no tokenizer": ("sd", lambda folder: shutil.rmtree(folder / "tokenizer"), ("tokenizer cannot be made",)),
    "broken tokenizer": (
        "sdxl",
        garbled("tokenizer_2", "*.json"),
        ("tokenizer_2 cannot be made",),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_would_fail_or_go_wrong_later_is_refused_at_dry_run(
    tmp_path, folders, photos, refused, monkeypatch, name
):
    monkeypatch.setattr(bases, "load", None)
    family, change, words = FAULTS[name]
    folder = shutil.copytree(folders[family], tmp_path / "base")
    change(folder)
    common = {"base": str(folder), "data": str(photos), "classes": ("apple",), "dry_run": True}
    with refused("--base", *words):
        train(TrainLora(output=tmp_path / "a", **common))
    with refused("--base", *words):
        generate(Generate(output=str(tmp_path / "s"), count=1, **common))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "sd3-t5", "sana"])
def test_whole_bases_pass(folders, family):
    from orchard.adapters import layers

    layers.require_loadable(bases.resolve(str(folders[family])))


@pytest.fixture(scope="module")
def whitened(tmp_path_factory) -> Path:
    """SDXL whose autoencoder has latents of another mean and deviation a channel."""
    return pipelines.tiny_sdxl(tmp_path_factory.mktemp("base") / "whitened", **STATISTICS)


def test_latents_with_statistics_are_decoded_as_the_stock_pipeline_does(whitened, folders):
    plan = plans.class_plan(count=1)
    _, pipe = pipelines.load(whitened)
    (ours,) = plans.sampled(pipe, plan, batch_size=1)
    generator = torch.Generator().manual_seed(plan.row(0).seed)
    options = {"generator": generator, "num_inference_steps": 3, "guidance_scale": 2.0}
    stock = np.asarray(pipe(plans.PROMPT, **options).images[0], dtype=int)
    assert np.abs(stock - ours).max() <= 1
    (plain,) = plans.sampled(pipelines.load(folders["sdxl"])[1], plan, batch_size=1)
    assert np.abs(plain - ours).max() > 20


def test_latents_with_statistics_are_trained_on_as_the_stock_pipeline_encodes_them(whitened):
    base, pipe = pipelines.load(whitened)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    mean, std = family_of(pipe, base).posterior(pixels[None])
    stock = StableDiffusionXLImg2ImgPipeline.from_pipe(pipe)
    image = stock.image_processor.preprocess(Image.fromarray(pixels))
    for seed in range(2):
        drawn = stock.prepare_latents(
            *(image, None, 1, 1, torch.float32, torch.device("cpu")),
            generator=torch.Generator().manual_seed(seed),
            add_noise=False,
        )
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(mean + std * noise, drawn, atol=1e-5)


@pytest.mark.parametrize(("marks", "kind"), [(("v_pred",), False), (("v_pred", "ztsnr"), True)])
def test_a_file_of_sdxl_that_marks_itself_is_trained_and_sampled_by_its_marks(tmp_path, marks, kind):
    """`v_pred` and `ztsnr`, by which WebUI and ComfyUI know such files; the configs say epsilon."""
    configs = pipelines.tiny_sdxl(tmp_path / "model")
    _, plain = pipelines.load(configs)
    file = single_files.write(plain, tmp_path / "model.safetensors")
    save_file(load_file(file) | {mark: torch.zeros(1) for mark in marks}, file)
    base = bases.resolve(str(file))
    assert base.prediction_type == "v_prediction"
    pipe = bases.load(base, torch.float32, torch.device("cpu"))
    family = family_of(pipe, base)
    assert (family.prediction_type, family.alphas_cumprod[-1].item() == 0) == ("v_prediction", kind)
    for scheduler in ("base", "dpmsolver++"):
        plan = plans.class_plan(count=1)
        pipe.scheduler = bases.scheduler(base)
        (ours,) = plans.sampled(pipe, plan, batch_size=1, scheduler=scheduler)
        assert pipe.scheduler.config.prediction_type == "v_prediction"
        assert pipe.scheduler.config.rescale_betas_zero_snr is kind
        pipe.scheduler.set_timesteps(3)
        assert not kind or pipe.scheduler.timesteps[0] == 999
        (epsilon,) = plans.sampled(plain, plan, batch_size=1, scheduler=scheduler)
        assert np.abs(ours - epsilon).max() > 8


@pytest.mark.parametrize("mark", ["edm_mean", "edm_vpred.sigma_max"])
def test_a_file_that_marks_itself_as_edm_is_refused(tmp_path, refused, mark):
    _, pipe = pipelines.load(pipelines.tiny_sdxl(tmp_path / "model"))
    file = single_files.write(pipe, tmp_path / "model.safetensors")
    save_file(load_file(file) | {mark: torch.zeros(4)}, file)
    with refused("model.safetensors", mark, "EDM"):
        bases.resolve(str(file))
