"""A LoRA on a denoiser in 8 or 4 bits."""

import sys
from pathlib import Path

import pictures
import pipelines
import pytest
import torch

from finetune import command
from finetune.config import TrainLora
from finetune.models import quantized
from orchard.adapters import adapter

SMALL = {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "precision": "fp32", "rank": 2, "sheets": False}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, object]:
    files = [f"{split}/{name}/0.png" for split in ("test", "train") for name in ("apple", "pear")]
    photos = pictures.write(tmp_path / "photos", files)
    return {"data": str(photos), "base": str(pipelines.tiny(tmp_path / "base")), "output": tmp_path / "out"}


def test_without_its_package_it_is_refused_and_named(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    quantized.require_package("none")
    with refused("--quantize nf4", "pip install bitsandbytes"):
        quantized.require_package("nf4")


def test_other_methods_are_refused(refused):
    with refused("--quantize int8", "--method dora", "give lora"):
        TrainLora(quantize="int8", method="dora").require_valid()


@pytest.mark.parametrize(("kind", "error"), [("nf4", 0.1), ("int8", 0.01)])
def test_the_quantised_denoiser_predicts_nearly_the_same(kind, error):
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    network = pipelines.unet(cross_attention_dim=16)
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([3, 700]), torch.randn(2, 7, 16)
    with torch.no_grad():
        whole = network(*inputs).sample
        quantized.quantize(network, kind)
        rounded = network.to("cpu")(*inputs).sample
    assert 0 < (rounded - whole).norm() / whole.norm() < error
    assert not any(type(layer) is torch.nn.Linear for layer in network.modules())


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_adapters_are_trained_on_it_and_written_as_ever(places, kind):
    pytest.importorskip("bitsandbytes")
    command.train(TrainLora(**places, **SMALL, quantize=kind))
    for name in ("apple", "pear"):
        found = adapter.read(places["output"] / f"{name}.safetensors")
        adapter.require_finite(found)
        assert found.provenance.options["quantize"] == kind
