"""Networks by name, weights to begin with, and frozen features with a solved last layer."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from classify.config import Training
from classify.features import STRENGTH
from classify.mixing import UNION, Mixing
from classify.trainer import Task, fit
from orchard.classifiers import classifier
from orchard.classifiers.networks import build, last_layer, require_name
from orchard.classifiers.predict import features, probabilities

CPU = torch.device("cpu")
GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)


def fitted(classes: int, real: int = 24, mixing: Mixing = UNION, **options):
    labels = np.arange(24) % classes
    task = Task(
        train=(PIXELS[:real], labels[:real]),
        synthetic=(PIXELS[real:], labels[real:]),
        mixing=mixing,
        validation=(PIXELS[:6], labels[:6]),
        classes=classes,
        options=Training(**{"steps": 2, "batch_size": 8, "model": "features:cnn", **options}),
        seed=0,
        device=CPU,
        dtype=torch.float32,
    )
    return fit(task)


@pytest.fixture
def weights(tmp_path):
    """A file with the weights of a CNN for other classes, whose last layer therefore does not fit."""
    path = tmp_path / "cnn.safetensors"
    state = build("cnn", 7, 32, seed=5).network.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize("classes", [2, 3])
def test_the_solved_last_layer_gives_scikit_learns_probabilities(weights, classes):
    model = fitted(classes, pretrained=str(weights)).model
    found = features(model, last_layer(model), PIXELS, CPU, torch.float32)
    scaled = StandardScaler().fit_transform(found)
    expected = LogisticRegression(C=STRENGTH, max_iter=2000).fit(scaled, np.arange(24) % classes)
    assert found.shape == (24, 512)
    assert probabilities(model, PIXELS, CPU, torch.float32) == pytest.approx(
        expected.predict_proba(scaled), abs=1e-4
    )


def test_frozen_features_are_those_of_the_weights(weights):
    before = build("cnn", 7, 32, seed=5)
    after = fitted(2, pretrained=str(weights)).model
    first, second = (features(m, last_layer(m), PIXELS, CPU, torch.float32) for m in (before, after))
    assert np.array_equal(first, second)


def test_without_weights_the_features_come_from_the_real_images_alone():
    with_synthetic, without = fitted(2, real=12), fitted(2, real=12, mixing=Mixing(name="weight"))
    first, second = (
        features(f.model, last_layer(f.model), PIXELS, CPU, torch.float32) for f in (with_synthetic, without)
    )
    assert np.array_equal(first, second)
    assert not torch.equal(last_layer(with_synthetic.model).weight, last_layer(without.model).weight)
    assert with_synthetic.validation_accuracy is not None


def test_weights_in_a_saved_classifier_of_ours_count_and_its_images_are_known(tmp_path):
    model = build("cnn", 7, 32, seed=5)
    record = classifier.Record(
        model="cnn", classes=tuple("abcdefg"), size=32, through=None, seed=5, steps=1, data="",
        trained_on=("ab",),
    )  # fmt: skip
    classifier.save(tmp_path / classifier.FILE, model, record)
    begun = build("cnn", 2, 32, 0, str(tmp_path))
    assert torch.equal(begun.network[0].weight, model.network[0].weight)
    assert classifier.seen_by(str(tmp_path)) == {"ab"}
    assert classifier.seen_by("") == classifier.seen_by("cache") == frozenset()


def test_weights_of_another_network_or_none_are_refused(tmp_path, weights, refused):
    assert classifier.seen_by(str(weights)) == frozenset()
    with refused("--pretrained", "of 122 tensors fit resnet18"):
        build("resnet18", 2, 32, 0, str(weights))
    with refused("--pretrained nowhere", "no such file"):
        build("cnn", 2, 32, 0, "nowhere")
    with refused("--pretrained cache", "timm:NAME"):
        build("cnn", 2, 32, 0, "cache")
    (tmp_path / "half.safetensors").write_bytes(b"half")
    with refused("not a whole safetensors file"):
        build("cnn", 2, 32, 0, str(tmp_path / "half.safetensors"))


def test_timm_networks_are_built_by_name_and_never_fetch_weights(monkeypatch, tmp_path, refused):
    pytest.importorskip("timm", reason="timm is an optional extra")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = build("timm:resnet10t", 3, 32, seed=0)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    with refused("--model timm:resnet10q", "timm:resnet10t"):
        require_name("timm:resnet10q")
    with refused("--pretrained cache", "no weights of timm:resnet10t", "hf download"):
        build("timm:resnet10t", 3, 32, 0, "cache")


def test_features_of_a_network_that_is_not_there_are_refused(refused):
    require_name("features:mobilenet_v3_small")
    with refused("--model features:resnet81", "resnet18"):
        require_name("features:resnet81")
    with refused("--model features:squeezenet1_1", "not linear"):
        build("features:squeezenet1_1", 2, 64, 0)
