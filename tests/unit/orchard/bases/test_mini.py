"""The embedded base: a stock pipeline, small enough to ship, that knows its fruit."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from orchard.bases import bases

FRUIT = ("apple", "banana", "orange")


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(
        bases.EMBEDDED, safety_checker=None, torch_dtype=torch.float32
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_fits_in_24_megabytes():
    files = [path for path in bases.EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt")]


def test_its_configs_say_what_it_is():
    base = bases.resolve("mini")
    assert (base.family, base.resolution, base.prediction_type) == ("sd", 64, "v_prediction")
    index = json.loads((bases.EMBEDDED / "model_index.json").read_text())
    assert index["unet"][1] == "UNet2DConditionModel"
    assert index["vae"][1] == "AutoencoderKL"
    assert index["text_encoder"][1] == "CLIPTextModel"
    assert index["tokenizer"][1] == "CLIPTokenizer"


def test_its_fruit_are_single_tokens():
    words = CLIPTokenizer.from_pretrained(bases.EMBEDDED / "tokenizer")
    for name in FRUIT:
        assert len(words(f"a photo of {name}").input_ids) == 6
    assert len(words("a photo of zebra").input_ids) > 6


def sampled(pipe: StableDiffusionPipeline, prompt: str) -> np.ndarray:
    """(8, 64, 64, 3) from 0 to 1."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    return pipe(
        [prompt] * 8, generator=generators, num_inference_steps=10, guidance_scale=3.0, output_type="np"
    ).images


def middle(images: np.ndarray) -> np.ndarray:
    """The mean colour of what is shown."""
    return images[:, 16:48, 16:48].mean(axis=(0, 1, 2))


def corners(images: np.ndarray) -> np.ndarray:
    """(8, 3) colours of the ground."""
    return images[:, :6, :6].mean(axis=(1, 2))


def test_a_prompt_gives_the_colour_of_its_fruit(pipe):
    means = {name: middle(sampled(pipe, f"a photo of {name}, white background")) for name in FRUIT}
    red, green, blue = range(3)
    assert means["banana"][green] - means["banana"][blue] > 0.1
    assert means["orange"][red] - means["orange"][blue] > 0.2
    assert means["orange"][red] - means["orange"][green] > means["banana"][red] - means["banana"][green]
    assert means["apple"][red] > means["apple"][blue]


def test_a_prompt_can_ask_for_a_green_apple_on_blue_paper(pipe):
    images = sampled(pipe, "a photo of a green apple on blue paper")
    red, green, blue = corners(images).T
    assert (blue > np.maximum(red, green) + 0.1).mean() >= 0.75
    red, green, blue = middle(images) - middle(sampled(pipe, "a photo of a red apple on blue paper"))
    assert green > 0.1 > red


def test_a_white_background_comes_out_white(pipe):
    assert np.median(corners(sampled(pipe, "a photo of banana, white background"))) > 0.9
