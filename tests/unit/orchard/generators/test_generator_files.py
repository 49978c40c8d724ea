"""The decoder and its file: images by seed and class alone, a header with the ledger, strange files."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchard.generators import files
from orchard.generators.decoder import Decoder, noise, to_pixels
from orchard.generators.files import Record

CPU = torch.device("cpu")
SIZES = {"size": 32, "width": 2, "latent": 3}


def record(**more) -> Record:
    usual = {
        "kind": "gan",
        "classes": ("apple", "pear"),
        "all_classes": ("apple", "pear", "plum"),
        "steps": 5,
        "seed": 0,
        "losses": {"first": 2.0, "last": 1.0},
        "data": "photos",
        "trained_on": ("a" * 64, "b" * 64),
    }
    return Record(**{**SIZES, **usual, **more})


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    files.save(tmp_path / "gan.safetensors", Decoder(classes=2, **SIZES), record())
    return tmp_path / "gan.safetensors"


def test_the_file_gives_the_network_and_its_record_back(path):
    torch.manual_seed(0)
    network = Decoder(classes=2, **SIZES).eval()
    found = files.read(path)
    assert found == record()
    loaded = files.load(path, found, CPU)
    latents, labels = noise(3, [1, 2]), torch.tensor([0, 1])
    assert torch.equal(loaded(latents, labels), network(latents, labels))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("size", files.SIZES)
def test_every_size_has_images_of_that_side(size):
    network = Decoder(classes=2, size=size, width=1, latent=2)
    images = network(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert images.shape == (2, 3, size, size) and images.abs().max() <= 1
    assert to_pixels(images).shape == (2, size, size, 3)
    assert to_pixels(torch.tensor([-1.0, 1.0]).expand(1, 3, 2, 2)).unique().tolist() == [0, 255]


def test_an_image_depends_on_its_own_seed_and_class_alone(path):
    network = files.load(path, record(), CPU)
    labels = torch.tensor([0, 1, 1, 0])
    together = network(noise(3, [5, 6, 7, 5]), labels)
    for place, (seed, label) in enumerate(((5, 0), (6, 1), (7, 1), (5, 0))):
        alone = network(noise(3, [seed]), torch.tensor([label]))[0]
        assert torch.allclose(together[place], alone, atol=1e-5)
    assert torch.allclose(together[0], together[3], atol=1e-5)
    assert not torch.allclose(together[1], together[2], atol=1e-3)


def test_a_bare_name_is_looked_for_here_and_then_in_the_folder(path, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path.parent)
    assert files.find("gan.safetensors", path.parent) == path
    assert files.find(str(path)) == path
    with refused("--generator vae.safetensors", "no file vae.safetensors nor generators/vae.safetensors"):
        files.find("vae.safetensors")


def altered(path, **fields):
    """The file with these fields of its header."""
    values = {**dataclasses.asdict(files.read(path)), **fields}
    save_file(load_file(path), path, metadata={files.HEADER: json.dumps(values)})
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "lora"}, ("kind is 'lora'",)),
        ({"schema": 9}, ("written by a newer version",)),
        ({"size": 48}, ("size is 48",)),
        ({"width": 10**9}, ("width is out of range",)),
        ({"latent": 0}, ("latent is out of range",)),
        ({"classes": ["kiwi"]}, ("'kiwi'", "are not of")),
        ({"classes": []}, ("no list of class names",)),
    ],
)
def test_headers_that_are_none_are_refused(path, refused, fields, words):
    with refused("--generator", *words):
        files.read(altered(path, **fields))


def test_weights_that_are_not_the_headers_are_refused(path, refused):
    with refused("do not fit its header"):
        files.load(altered(path, width=1024), files.read(path), CPU)
    altered(path, width=2)
    save_file({**load_file(path), "first.bias": torch.full((128,), torch.nan)}, path)
    with refused("NaN or infinity"):
        files.load(path, record(), CPU)


def test_files_of_other_kinds_are_refused(tmp_path, refused):
    (tmp_path / "text").write_text("no tensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "bare")
    for name in ("text", "bare"):
        with refused("not a file of finetune/train_gan.py"):
            files.read(tmp_path / name)
