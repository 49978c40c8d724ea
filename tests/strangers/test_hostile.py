"""Samples made to do harm: nothing is unpickled, and no code of theirs runs."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pictures
import pipelines
import pytest
import torch
from loras import load

from orchard.adapters import adapter
from orchard.bases import bases
from orchard.classifiers import classifier, embeddings, pretrained
from orchard.datasets import sources
from orchard.errors import UserError

SIGN = "HARMED"
CODE = f"import os, pathlib\npathlib.Path(os.environ[{SIGN!r}]).touch()\n"


class Harm:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path(os.environ[SIGN]),)


@pytest.fixture
def unharmed(tmp_path, monkeypatch):
    """Fails the test in which a sample had its way."""
    sign = tmp_path / "harmed"
    monkeypatch.setenv(SIGN, str(sign))
    pickle.loads(pickle.dumps(Harm()))
    assert sign.exists(), "the sample does no harm, so it shows nothing"
    sign.unlink()
    yield tmp_path
    assert not sign.exists()


def poisoned(path: Path) -> Path:
    """A pickle, bare or as torch packs it, that harms whoever loads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save({"lora": Harm()}, path)
    else:
        path.write_bytes(pickle.dumps({"lora": Harm()}))
    return path


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.ckpt", "a.safetensors", "a.pkl"])
def test_no_weights_are_unpickled(unharmed, refused, name):
    path = poisoned(unharmed / name)
    with refused(name, "not a safetensors file"):
        adapter.read(path)
    with refused(name):
        bases.resolve(str(path))
    with refused(name):
        classifier.load(path)
    with refused(name):
        pretrained.load_into(torch.nn.Sequential(torch.nn.Linear(1, 1)), "cnn", str(path))


WEIGHTS = {
    "unet": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
}


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_base_with_pickled_weights_alone_is_refused(unharmed, refused, part):
    folder = pipelines.tiny(unharmed / "base")
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    poisoned(folder / part / WEIGHTS[part])
    with refused("no safetensors weights in", part):
        bases.resolve(str(folder))


def test_pickles_beside_whole_weights_and_code_in_a_base_are_left_alone(unharmed, monkeypatch):
    folder = pipelines.tiny(unharmed / "base")
    for part, name in WEIGHTS.items():
        poisoned(folder / part / name)
        (folder / part / "own.py").write_text(CODE)
        config = folder / part / "config.json"
        value = json.loads(config.read_text()) | {"auto_map": {"AutoModel": "own.Model"}}
        config.write_text(json.dumps(value))
    (folder / "pipeline.py").write_text(CODE)
    monkeypatch.chdir(folder / "unet")
    assert load(bases.resolve(str(folder))).unet is not None


@pytest.mark.parametrize("library", ["own", "os", "builtins", ["own"], 5, ""])
def test_a_base_that_names_other_modules_is_refused(unharmed, refused, library, monkeypatch):
    folder = pipelines.tiny(unharmed / "base")
    index = json.loads((folder / "model_index.json").read_text()) | {"unet": [library, "Model"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (unharmed / "own.py").write_text(CODE)
    monkeypatch.syspath_prepend(unharmed)
    with refused("its unet is of", "only components of"):
        bases.resolve(str(folder))


def test_a_backbone_with_code_of_its_own_is_refused(unharmed, refused):
    (unharmed / "net").mkdir()
    (unharmed / "net" / "own.py").write_text(CODE)
    config = {"auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}, "model_type": "own"}
    (unharmed / "net" / "config.json").write_text(json.dumps(config))
    with refused("code of its own"):
        embeddings.of_backbone(str(unharmed / "net"), torch.device("cpu"))


def test_a_data_set_runs_no_script_and_unpacks_nothing(unharmed):
    root = pictures.write(unharmed / "set", ["apple/0.png", "pear/0.png"])
    (root / "set.py").write_text(CODE)
    poisoned(root / "apple" / "data.pkl")
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.writestr("../../escaped.png", "x")
    assert len(sources.load(str(root))) == 2
    (root / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError):
        sources.load(str(root))
    assert not list(unharmed.parent.glob("escaped*"))
