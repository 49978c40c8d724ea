"""The four commands as functions: what they return and raise, and that a program can call them again."""

import importlib
import json
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from shell import command

import finetune
from classify import classify
from classify.config import Classify
from evaluate import evaluate
from evaluate.analysis.analyse import Analysis
from finetune import train_lora
from finetune.config import TrainLora
from finetune.training.interrupt import Interrupt
from generate import generate
from orchard import shards
from orchard.cli import cli, signals

SCRIPT = ["ipykernel_launcher.py", "-f", "/kernel-1.json"]
TRAINING = {"steps": 2, "batch_size": 2, "precision": "fp32"}
IMPORTS = """
import sys
import finetune
from classify import classify
from evaluate import evaluate
from finetune import train_lora
from generate import generate
from review import review
print(callable(train_lora), sorted({"torch", "numpy", "datasets", "diffusers", "rich"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def flow(tmp_path_factory, base, photos) -> SimpleNamespace:
    """What the four return, called one after another in a process whose command line is not ours."""
    folder = tmp_path_factory.mktemp("flow")
    data, small = str(photos), {**TRAINING, "data": str(photos)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    heard = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", SCRIPT)
        patch.setattr(signals, "_command", False)
        exit_code = Interrupt.exit_code
        patch.setattr(
            Interrupt,
            "exit_code",
            lambda *given: heard.append(signal.getsignal(signal.SIGTERM)) or exit_code(*given),
        )
        adapters = train_lora(base=base, rank=1, sheets=False, **small)
        synthetic = generate(lora=adapters.values(), count=6, steps=1, precision="fp32", data=data)
        scored = classify(train=synthetic.name, test=data, size=32, **TRAINING)
        found = evaluate(ratios=[1.0, 0.5], seeds=1, size=32, total=4, **small)
    assert heard and set(heard) == {handlers[signal.SIGTERM]}
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    return SimpleNamespace(
        folder=folder, data=data, adapters=adapters, synthetic=synthetic, scored=scored, found=found
    )


def test_importing_them_loads_nothing_heavy(tmp_path):
    assert command(tmp_path, sys.executable, "-c", IMPORTS, PYTHONPATH=str(ROOT)) == "True []\n"


def test_train_lora_returns_the_adapter_of_each_class(flow):
    names = ("apple", "pear")
    assert flow.adapters == {name: Path("adapters") / f"{name}.safetensors" for name in names}
    assert all((flow.folder / path).is_file() for path in flow.adapters.values())


def test_generate_returns_the_set_with_its_images(flow):
    assert flow.synthetic.counts() == {"apple": 6, "pear": 6}
    photo = flow.synthetic.photos[0]
    assert (photo.label, photo.text, photo.image().size) == ("apple", "a photo of apple", (32, 32))


def test_classify_returns_what_it_wrote(flow):
    written = json.loads((flow.folder / "classifier" / "scores.json").read_text())
    assert flow.scored.scores.items() <= written.items()
    assert (flow.folder / flow.scored.path).is_file()


def test_evaluate_returns_the_analysis_and_the_page(flow):
    assert isinstance(flow.found.analysis, Analysis)
    assert [row.arm.ratio for row in flow.found.analysis.rows] == [1.0, 0.5]
    assert flow.found.analysis.verdict in (flow.folder / flow.found.report).read_text()
    assert not flow.found.failures


def test_records_name_the_options_of_the_call_and_not_the_program(flow):
    texts = [p.read_text(errors="replace") for p in flow.folder.rglob("*") if p.suffix in (".json", ".html")]
    assert not any(SCRIPT[0] in text for text in texts)
    (line,) = json.loads((flow.folder / "evaluation" / "experiment.json").read_text())["commands"]
    assert line.startswith(f"python -m evaluate --data {flow.data} ")
    assert "--ratios 1.0 0.5" in line


def test_a_second_call_takes_another_precision_and_gives_the_same_again(flow, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {"base": base, "data": flow.data, "rank": 1, "sheets": False}
    train_lora(classes="apple", output="bf16", **{**small, **TRAINING, "precision": "bf16"})
    again = train_lora(TrainLora(steps=9), classes=["apple", "pear"], output="fp32", **small, **TRAINING)
    for name, path in again.items():
        tensors, first = load_file(path), load_file(flow.folder / flow.adapters[name])
        assert all(torch.equal(first[key], value) for key, value in tensors.items())


def test_a_complete_set_is_returned_again_without_sampling(flow, monkeypatch, capsys):
    monkeypatch.chdir(flow.folder)
    lora = [str(path) for path in flow.adapters.values()]
    again = generate(lora=lora, count=6, steps=1, precision="fp32", data=flow.data)
    assert "nothing written" in capsys.readouterr().out
    assert again.digest() == flow.synthetic.digest() == shards.read(flow.folder / "shards").digest()


def test_they_may_be_called_from_a_thread(flow, tmp_path):
    found = []
    options = {"train": str(flow.folder / "shards"), "test": flow.data, "size": 32, **TRAINING}
    thread = threading.Thread(target=lambda: found.append(classify(output=tmp_path / "out", **options)))
    thread.start()
    thread.join()
    assert found[0].scores == flow.scored.scores


@pytest.mark.parametrize(
    ("call", "options", "words"),
    [
        (train_lora, {"stepz": 4}, ("--stepz", "Perhaps you meant", "--steps")),
        (train_lora, {"steps": "many"}, ("--steps", "'many'")),
        (train_lora, {"steps": 0}, ("--steps 0", "give 1 or more")),
        (train_lora, {"joint": "yes"}, ("joint", "neither true nor false")),
        (train_lora, {"data": "nowhere"}, ("--data nowhere: no such folder",)),
        (train_lora, {"config": "nowhere.yaml"}, ("--config nowhere.yaml: no such file",)),
        (train_lora, {"config": Classify()}, ("Classify", "give a TrainLora")),
        (generate, {"lora": "kiwi.safetensors"}, ("--lora kiwi.safetensors: no file",)),
        (generate, {"steps": [1, [2]]}, ("steps", "nested")),
        (classify, {"train": "demo"}, ("--test is missing",)),
        (evaluate, {"precision": "fp8"}, ("fp8", "bf16")),
        (evaluate, {"data": "demo", "synthetic": "nowhere"}, ("--synthetic nowhere: no such folder",)),
    ],
)
def test_a_mistake_is_raised_to_the_caller(tmp_path, monkeypatch, refused, call, options, words):
    monkeypatch.chdir(tmp_path)
    with refused(*words):
        call(**options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (train_lora, {}),
        (classify, {"train": "demo", "test": "demo"}),
        (evaluate, {"ratios": 1.0}),
    ],
)
def test_a_dry_run_prints_the_plan_and_makes_nothing(tmp_path, monkeypatch, capsys, call, options):
    monkeypatch.chdir(tmp_path)
    assert not call(data="demo", dry_run=True, **options)
    assert "demo" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_options_win_over_a_recipe_and_over_a_config(tmp_path):
    (tmp_path / "r.yaml").write_text("steps: 3\nrank: 2\ndata: demo\n")
    recipe = cli.resolve(TrainLora, tmp_path / "r.yaml", {"steps": 5}, "prog")
    assert (recipe.steps, recipe.rank, recipe.data) == (5, 2, "demo")
    given = TrainLora(steps=3, rank=2, classes=("a b", "c"), sheets=False, alpha=0.5, dry_run=True)
    assert cli.resolve(TrainLora, given, {}, "prog") == given
    assert cli.resolve(TrainLora, given, {"classes": ()}, "prog").classes == ()


def test_the_script_cannot_be_imported_over_the_function():
    with pytest.raises(ImportError, match="from finetune import train_lora"):
        importlib.import_module("finetune.train_lora")
    assert callable(finetune.train_lora)
