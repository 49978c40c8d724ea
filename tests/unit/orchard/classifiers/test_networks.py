"""Networks by name: what a size is refused for, and that the advised one trains."""

import re

import numpy as np
import pytest
import torch
import torchvision

from classify.config import Training
from classify.trainer import Fitted, Task, fit
from orchard.classifiers import classifier
from orchard.classifiers.networks import build
from orchard.errors import UserError

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf",
    "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t",
    "swin_v2_t", "vgg11", "vit_b_32", "wide_resnet50_2",
)  # fmt: skip
"""The smallest of each architecture."""
LARGEST = 100e6
"""Weights: a step of more takes gigabytes."""
NAMES = torchvision.models.list_models(module=torchvision.models)


def advised(refusal: UserError) -> int:
    """The size that a refusal names."""
    found = re.search(r"use --size (\d+), or --model cnn", str(refusal))
    assert found, refusal
    return int(found[1])


def fits(name: str, size: int = 32) -> int:
    """The size if the network takes it, else the one that its refusal advises, which it has to take."""
    try:
        build(name, 2, size, 0)
    except UserError as refusal:
        size = advised(refusal)
        build(name, 2, size, 0)
    return size


def one_step(name: str, size: int) -> Fitted:
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    labels = np.arange(2)
    task = Task(
        train=(pixels, labels),
        validation=(pixels[:0], labels[:0]),
        classes=2,
        options=Training(model=name, steps=1, batch_size=2),
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return fit(task)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_architecture_takes_the_size_that_is_advised(name):
    """In shapes alone, with weights that have none of their values; regnets draw theirs from numbers."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        assert fits(name) in (32, 224)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_network_of_torchvision_trains_one_step(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    if weights > LARGEST:
        pytest.skip(f"{weights / 1e6:.0f} million weights, and as many again for each of their four copies")
    fitted = one_step(name, fits(name))
    assert all(value.isfinite().all() for value in fitted.model.state_dict().values())


def test_the_small_ones_stand_for_every_network():
    """No architecture of torchvision is without one: names differ in depth, width and version alone."""

    def stem(name: str) -> str:
        return re.match(r"(?:wide_)?[a-z]+(?:_v\d|_x_|_y_)?", name)[0]

    assert {stem(name) for name in NAMES} == {stem(name) for name in FAMILIES}


def test_a_network_without_a_size_that_works_is_refused_without_one(monkeypatch, refused):
    monkeypatch.setattr("orchard.classifiers.networks.USUAL", (32,))
    with refused("--model alexnet: does not take --size 40", "use --model cnn"):
        build("alexnet", 2, 40, 0)


@pytest.mark.parametrize("name", ["squeezenet1_0", "maxvit_t"])
def test_a_last_layer_that_cannot_be_solved_is_refused(name, refused):
    with refused(f"--model features:{name}", "not linear with a bias"):
        build(f"features:{name}", 2, 224, 0)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_classifiers_saved_with_heads_for_a_second_loss_still_load(name, tmp_path):
    """As older versions built them, whose weights lie in files: torchvision's own, with all heads."""
    old = torchvision.models.get_model(name, weights=None, num_classes=2, init_weights=False, aux_logits=True)
    model = torch.nn.ModuleDict({"network": old})
    record = classifier.Record(
        model=name, classes=("x", "y"), size=128, through=None, seed=0, steps=1, data="set", trained_on=()
    )
    classifier.save(tmp_path / classifier.FILE, model, record)
    loaded, _ = classifier.load(tmp_path)
    image = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        expected = old.eval()(loaded.standardise(image))
        assert torch.allclose(loaded(image), expected, atol=1e-5)
