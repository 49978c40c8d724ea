"""The trainer's methods, layers and text encoders through the commands."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from loras import load
from safetensors.torch import load_file
from shell import TRAIN, TWO, command, refusal

from finetune.command import train
from finetune.config import TrainLora
from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter, attaching, provenance
from orchard.bases import bases

SMALL = {"data": "demo", "precision": "fp32", "steps": 3, "batch_size": 2, "rank": 2, "learning_rate": 0.1}


def trained(base: Path, output: Path, **options) -> adapter.Adapter:
    """The last class's adapter."""
    config = TrainLora(base=str(base), output=output, **{"classes": ("apple",), **SMALL, **options})
    train(config)
    return adapter.read(output / f"{config.classes[-1]}.safetensors")


@pytest.mark.slow
def test_text_encoder_dora_resumes_exactly_and_is_the_same_on_two_processes(base, tmp_path):
    words = [TRAIN[1], "--data", "demo", "--base", base, "--classes", "apple", "--precision", "fp32"]
    words += ["--batch_size", 4, "--rank", 2, "--steps", 4, "--save_every", 2, "--keep", 0]
    words += ["--train_text_encoder", "--text_encoder_learning_rate", 0.0005, "--method", "dora"]
    words += ["--targets", "attention", "ff.net.2", "mlp.fc1"]
    said = command(tmp_path, TRAIN[0], *words, "--output", "one")
    assert "dora of rank 2 on attention, ff.net.2, mlp.fc1 and the text encoders" in said
    straight = load_file(tmp_path / "one" / "apple.safetensors")
    (tmp_path / "one" / "apple.safetensors").unlink()
    said = command(tmp_path, TRAIN[0], *words, "--output", "one", "--resume", "latest")
    assert "resuming  apple after step 2" in said
    again = load_file(tmp_path / "one" / "apple.safetensors")
    assert straight.keys() == again.keys()
    assert all(torch.equal(straight[key], again[key]) for key in straight)
    assert "processes 2" in command(tmp_path, *TWO, *words, "--output", "two")
    both = load_file(tmp_path / "two" / "apple.safetensors")
    for key, value in straight.items():
        np.testing.assert_allclose(both[key], value, atol=2e-5, err_msg=key)
    assert any(key.startswith("text_encoder") and "magnitude" in key for key in straight)
    origin = adapter.read(tmp_path / "one" / "apple.safetensors").provenance
    assert (origin.method, origin.text_encoders) == ("dora", ["text_encoder"])
    assert origin.targets == ["attention", "ff.net.2", "mlp.fc1"]


@pytest.mark.parametrize("method", ["loha", "lokr"])
def test_a_lycoris_adapter_goes_from_photos_to_shards(base, tmp_path, method):
    options = {"method": method, "targets": ("all",), "train_text_encoder": True, "alpha": 1.0}
    one = trained(base, tmp_path, **options)
    assert one.methods == (method,)
    assert all(key.startswith("lora_") for key in load_file(one.path))
    card = (tmp_path / "README.md").read_text()
    assert f"diffusers does not load {method}" in card and "load_lora_weights" not in card
    small = {"count": 1, "steps": 3, "scheduler": "base", "data": "demo", "precision": "fp32"}
    generate(Generate(lora=(str(one.path),), output=tmp_path / "tuned", **small))
    generate(Generate(base=str(base), classes=("apple",), output=tmp_path / "plain", **small))
    rows = [shards.rows_of(shards.path_of(tmp_path / name, "apple", 0)) for name in ("tuned", "plain")]
    assert rows[0][0]["image"]["bytes"] != rows[1][0]["image"]["bytes"]


@pytest.mark.parametrize("method", ["lora", "lokr"])
def test_an_adapter_trained_second_is_the_one_trained_alone(base, tmp_path, method):
    options = {"method": method, "train_text_encoder": True}
    second = trained(base, tmp_path / "both", classes=("apple", "banana"), **options)
    alone = trained(base, tmp_path / "alone", classes=("banana",), **options)
    one, other = load_file(second.path), load_file(alone.path)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_default_adapter_has_the_tensors_that_it_always_had(base, tmp_path):
    one = trained(base, tmp_path)
    layers = {key.rpartition(".lora_")[0].rpartition(".")[2] for key in load_file(one.path)}
    assert layers == {"to_q", "to_k", "to_v", "0"}
    assert all(key.startswith("unet.") for key in load_file(one.path))


def test_what_makes_no_sense_is_refused_before_anything_is_written(base, tmp_path):
    words = (*TRAIN, "--data", "demo", "--base", base, "--classes", "apple", "--dry_run")
    line = refusal(tmp_path, *words, "--targets", "to_qq")
    assert "--targets to_qq" in line and "give to_q" in line
    line = refusal(tmp_path, *words, "--targets", "to_q", "--train_text_encoder")
    assert "--targets to_q" in line and "no layer of text_encoder" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text_encoder_learning_rate": 0.1}, ("0.1", "goes with --train_text_encoder")),
        ({"text_encoder_learning_rate": -1, "train_text_encoder": True}, ("-1", "more than 0")),
        (
            {"text_encoder_learning_rate": 0.1, "train_text_encoder": True, "optimizer": "prodigy"},
            ("prodigy", "leave it out"),
        ),
        ({"method": "loha", "export": "kohya"}, ("--export kohya", "--method loha")),
        ({"method": "dora", "export": "kohya"}, ("--export kohya", "WebUI and ComfyUI", "--method dora")),
        ({"targets": ()}, ("--targets", "attention")),
        ({"targets": ("to_q", "to_q")}, ("--targets", "to_q")),
    ],
)
def test_options_that_contradict_each_other_are_refused(refused, options, words):
    with refused(*words):
        TrainLora(**options).require_valid()


@pytest.mark.parametrize(
    ("options", "tools"),
    [
        ({}, {"WebUI", "ComfyUI"}),
        ({"method": "lokr"}, {"WebUI", "ComfyUI"}),
        ({"family": "sd3"}, {"ComfyUI"}),
        ({"family": "sd3", "method": "loha"}, {"ComfyUI"}),
        ({"method": "dora"}, set()),
    ],
)
def test_a_card_names_only_the_tools_that_apply_the_adapter_as_it_was_trained(base, tmp_path, options, tools):
    """By the sources of WebUI's network.py and ComfyUI's weight_adapter/base.py and lora.py."""
    from finetune.outputs import snippets

    origin = dataclasses.replace(trained(base, tmp_path).provenance, **options)
    card = snippets.markdown(tmp_path / "apple.safetensors", origin)
    assert {tool for tool in ("WebUI", "ComfyUI") if f"In {tool}: copy" in card} == tools
    others = [line for line in card.splitlines() if "would apply it" in line or "does not load it" in line]
    assert {tool for tool in ("WebUI", "ComfyUI") if tool in "".join(others)} == {"WebUI", "ComfyUI"} - tools


@pytest.mark.parametrize("method", ["dora", "loha"])
def test_a_merged_file_is_what_other_tools_get_and_tells_its_error(base, tmp_path, capsys, method):
    trained(base, tmp_path, method=method, export="merged", train_text_encoder=True, targets=("all",))
    file = tmp_path / "merged" / "apple.safetensors"
    one = adapter.read(file)
    assert (one.methods, one.provenance.method) == (("lora",), method)
    assert one.provenance.trained_on == adapter.read(tmp_path / "apple.safetensors").provenance.trained_on
    told = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("merged    "))
    assert f"{file}: rank" in told and "relative error " in told
    card = (tmp_path / "README.md").read_text()
    assert told.partition(": ")[2] in card
    for words in ("to `models/Lora/`", "to `models/loras/`"):
        assert f"copy `merged/apple.safetensors` {words}" in card
    assert ('pipe.load_lora_weights("merged/apple.safetensors")' in card) == (method == "loha")


def test_the_plan_says_which_tools_kohyas_names_of_sd_3_are_for(folders, tmp_path, capsys):
    for family, option in (("sd3", "kohya"), ("sd3", "none"), ("sdxl", "kohya")):
        train(
            TrainLora(base=str(folders[family]), data="demo", classes=("apple",), export=option, dry_run=True)
        )
        said = "names of SD 3 are for ComfyUI" in capsys.readouterr().out
        assert said == ((family, option) == ("sd3", "kohya"))


def test_a_file_from_before_methods_were_recorded_still_loads(base, tmp_path):
    origin = trained(base, tmp_path).provenance
    old = {
        key: value for key, value in vars(origin).items() if key not in ("method", "targets", "text_encoders")
    }
    header = {provenance.HEADER: json.dumps({**old, "schema": 1})}
    found = provenance.of_header(tmp_path / "old.safetensors", header)
    assert (found.method, found.targets, found.text_encoders) == ("lora", ["attention"], [])


def test_a_lycoris_file_for_another_width_is_refused_and_changes_nothing(base, tmp_path, refused):
    one = trained(base, tmp_path / "a", method="loha")
    wide = bases.resolve(str(pipelines.tiny(tmp_path / "wide", width=24)))
    with refused("made for", "text width 24"):
        generate(Generate(lora=(str(one.path),), base=wide.name, output=tmp_path / "s"))
    pipe = load(wide)
    plain = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    with refused("tensors matched"):
        attaching.attach(pipe, one)
    assert all(torch.equal(value, plain[name]) for name, value in pipe.unet.state_dict().items())
