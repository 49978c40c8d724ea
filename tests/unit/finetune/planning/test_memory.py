"""What the phases of a run take on the device, of networks of the released sizes."""

from types import SimpleNamespace

import pytest
import torch

from bench import memory as table
from bench import released
from finetune.config import TrainLora
from finetune.planning import memory
from orchard.adapters import layers

GIB = 2**30
FAMILIES = {"sd15": "sd", "sdxl": "sdxl", "sd35-medium": "sd3"}


@pytest.fixture
def phases(monkeypatch):
    """The phases of a released base, in GiB, for an adapter of a million weights."""

    def of(name: str, **options) -> dict[str, float]:
        parts = released.skeleton(name)
        monkeypatch.setattr(layers, "skeleton", lambda folder, names: SimpleNamespace(**parts))
        base = SimpleNamespace(family=FAMILIES[name], folder=None)
        found = memory.phases(TrainLora(**options), base, "bf16", 10**6)
        return {phase: size / GIB for phase, size in found.items()}

    return of


def test_stable_diffusion_1_5_takes_less_the_fewer_bits_its_denoiser_has(phases):
    whole, eight, four = (phases("sd15", quantize=kind) for kind in ("none", "int8", "nf4"))
    unet = released.skeleton("sd15")["unet"]
    linear = sum(one.weight.numel() for one in unet.modules() if isinstance(one, torch.nn.Linear))
    vae, adapter = 83.65e6 * 2 / GIB, 1e6 * 16 / GIB
    assert whole["steps"] == pytest.approx(table.parameters(unet) * 2 / GIB + vae + adapter, abs=0.01)
    assert whole["steps"] - eight["steps"] == pytest.approx(linear / GIB, abs=0.001)
    assert whole["steps"] - four["steps"] == pytest.approx(linear * (2 - 0.5625) / GIB, abs=0.001)
    assert whole["prompts"] == eight["prompts"] == four["prompts"]


def test_only_the_largest_text_encoder_counts_and_samples_are_left_out_where_none_are_made(phases):
    found = phases("sd35-medium", sheets=False)
    assert set(found) == {"prompts", "photos", "steps"}
    assert found["prompts"] == pytest.approx((4762.3e6 + 83.8e6) * 2 / GIB, abs=0.01)
    with_samples = phases("sd35-medium")
    assert with_samples["samples"] - with_samples["steps"] == pytest.approx(4762.3e6 * 2 / GIB, abs=0.01)


def test_trained_encoders_stay_for_the_steps(phases):
    alone, both = (phases("sdxl", train_text_encoder=text) for text in (False, True))
    assert both["steps"] - alone["steps"] == pytest.approx((123.1e6 + 694.7e6) * 2 / GIB, abs=0.01)


def test_a_gpu_that_is_too_small_is_refused_with_what_helps(monkeypatch, refused):
    gpu = SimpleNamespace(total_memory=6 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    cuda = torch.device("cuda")
    fits = {"prompts": 10**9, "photos": 10**8, "steps": 5 * 10**9}
    assert "steps 5.0 GB of weights and their states; the GPU has 6.0 GB" in memory.line(
        TrainLora(), fits, cuda
    )
    with refused("the steps need 7.0 GB", "the GPU has 6.0 GB", "--quantize nf4"):
        memory.line(TrainLora(), fits | {"steps": 7 * 10**9}, cuda)
    with refused("the samples need 8.0 GB", "--no_sheets"):
        memory.line(TrainLora(), fits | {"samples": 8 * 10**9}, cuda)
    assert "activations come on top" in memory.line(TrainLora(), fits, torch.device("cpu"))
