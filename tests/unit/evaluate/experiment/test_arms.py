"""Arms with generators of their own: made once, shared, resumed, and what fails is named."""

import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pipelines
import pytest
import torch
from shell import EVALUATE, TWO, command
from squares import write_shards

from evaluate.command import FailedError, evaluate, run
from evaluate.config import Evaluate
from evaluate.experiment import own_generator
from evaluate.experiment.child_process import environment
from evaluate.experiment.own_generator import OwnGenerator, TuningError
from evaluate.gap import real_only_classifier
from evaluate.records import records
from orchard import devices, shards
from orchard.classifiers import classifier
from orchard.cli import cli
from orchard.datasets import sources
from orchard.images import arrays
from orchard.images.images import TEST, TRAIN

SMALL = ("--data", "demo", "--steps", 3, "--batch_size", 4, "--precision", "fp32", "--size", 32)
OWN = ("--base", "base", "--arm_steps", 1, "--arm_count", 3, "--shots", "1,2", "--seeds", 1)
WORDS = (*SMALL, *OWN, "--external", "fruit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a low-shot experiment ran on two processes."""
    folder = tmp_path_factory.mktemp("arms")
    pipelines.tiny(folder / "base")
    output = command(folder, *TWO, "-m", "evaluate", *WORDS, "--output", "two")
    assert "processes 2" in output
    assert output.count("report:") == 1
    return folder


def lines(path: Path) -> list[dict]:
    return [dict(record) for record in records.read(path)]


def plain(record: dict) -> dict:
    """A record without what no two runs have in common, and the commit, which may change while tests run."""
    return {n: value for n, value in record.items() if not n.startswith("seconds") and n != "commit"}


def by_arm(record: dict) -> tuple:
    return record["shots"], record["n_synthetic"]


def test_low_shot_arms_tune_on_their_own_images_alone(folder):
    found = sorted(lines(folder / "two"), key=by_arm)
    assert [(r["arm"], r["shots"], r["n_real"], r["n_synthetic"]) for r in found] == [
        ("shots", 1, 3, 0), ("shots", 1, 3, 9), ("shots", 2, 6, 0), ("shots", 2, 6, 9),
    ]  # fmt: skip
    arms = list((folder / "two" / "arms").iterdir())
    ledgers = [set(shards.read_manifest(arm / "shards")["trained_on"]) for arm in arms]
    assert sorted(map(len, ledgers)) == [3, 6]
    assert min(ledgers, key=len) < max(ledgers, key=len)
    assert not any((arm / "photos").exists() for arm in arms)


def test_external_sets_are_scored_apart(folder):
    for record in lines(folder / "two"):
        assert len(record["predictions"]) == 48
        found = record["external"]["fruit"]
        assert len(found["predictions"]) == 275
        answers = [max(p["probabilities"], key=p["probabilities"].get) for p in found["predictions"]]
        truths = [p["truth"] for p in found["predictions"]]
        right = [answer == truth for answer, truth in zip(answers, truths, strict=True)]
        assert found["accuracy"] == pytest.approx(sum(right) / 275)


def test_one_process_goes_on_where_two_stopped_and_ends_in_the_same_records(folder):
    shutil.copytree(folder / "two", folder / "one")
    path = folder / "one" / "records.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text(whole[0] + whole[1][:50])
    made = {file: file.stat().st_mtime_ns for file in path.parent.glob("arms/*/*/*")}
    assert "of it in the network" in command(folder, *EVALUATE, *WORDS, "--output", "one")
    assert {file: file.stat().st_mtime_ns for file in path.parent.glob("arms/*/*/*")} == made
    one, two = (sorted(map(plain, lines(folder / name)), key=by_arm) for name in ("one", "two"))
    assert one == two


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The arms for which images were made, by a stand-in for the two commands: noise, and a true ledger."""
    calls = []

    def stand_in(self: OwnGenerator, module: str, *options: object) -> None:
        calls.append(f"{module} {self.folder.name}")
        if module == "generate":
            seen = sorted(self.real.hashes()) if self.generator.sees_photos else []
            write_shards(self.folder / "shards", seen, self.real.classes, self.count)

    monkeypatch.setattr(OwnGenerator, "_call", stand_in)
    monkeypatch.setattr(devices, "torch_dtype", lambda precision, device: torch.float32)
    return calls


def config(output: Path, **options) -> Evaluate:
    small = {"data": "demo", "steps": 2, "batch_size": 4, "size": 32, "arm_count": 3, "seeds": 1}
    return Evaluate(**{**small, "output": output, **options})


def test_cross_validation_and_a_chosen_mixing_end_in_records(tmp_path, made):
    asked = {"folds": 2, "ratios": ("1", "0.5"), "mixing": "auto", "seeds": 2, "vary_seeds": ("classifier",)}
    evaluate(config(tmp_path, **asked))
    found = lines(tmp_path)
    assert [(r["fold"], r["mixing"], r["seed"]) for r in found] == [
        (fold, mixing, seed) for fold in (0, 1) for mixing in ("union", "auto 0.8") for seed in (0, 1)
    ]
    # Adapters and images of each of two folds, and again for the five parts of it that are scored to choose.
    assert len(made) == 2 * 2 * (1 + 5)
    tested = [p["file"] for r in found if r["mixing"] == "union" and r["seed"] == 0 for p in r["predictions"]]
    assert len(tested) == len(set(tested)) == 168
    for record in found:
        choice = record["mixing_choice"]
        assert (choice is None) == (record["mixing"] == "union")
        if choice:
            assert len(choice["tried"]) == 6
            assert list(choice["errors"]) == list(choice["tried"])[1:]
            assert (record["n_synthetic"] == 0) == (choice["chosen"] == "no synthetic images")
    kept = classifier.read(tmp_path / "real_only_fold.safetensors")
    assert len(kept.trained_on) == 84
    assert kept.seed == 0
    evaluate(config(tmp_path, **asked))
    assert lines(tmp_path) == found
    # Which choice wins differs between machines. What was chosen is what is measured; nothing without images.
    used = [record["fold"] for record in found if record["n_synthetic"]]
    assert (tmp_path / "fidelity.json").exists() == bool(used)
    if used:
        gap = json.loads((tmp_path / "fidelity.json").read_text())
        assert gap["arm"].startswith(f"50% real, fold {used[0]}, repeat 0, auto 0.8, seed")
        assert gap["gap"]["our real-trained classifier"]["test"]["images"] == 84


def test_images_on_disk_give_the_records_of_those_in_memory(tmp_path, made, monkeypatch):
    for place, share in (("memory", arrays.SHARE), ("disk", 0)):
        monkeypatch.setattr(arrays, "SHARE", share)
        evaluate(config(tmp_path / place, folds=2, ratios=("1", "0.5"), generators=("none", "tuned")))
    memory, disk = (list(map(plain, lines(tmp_path / place))) for place in ("memory", "disk"))
    assert len(memory) == 6 and memory == disk


def test_folds_share_untuned_images_and_compare_with_the_real_part_alone(tmp_path, made):
    asked = {"folds": 2, "ratios": ("1", "0.5"), "generators": ("auto", "none", "untuned", "tuned")}
    evaluate(config(tmp_path, **asked))
    found = lines(tmp_path)
    auto = "auto of untuned, tuned"
    assert [(r["fold"], r["ratio"], r["generator"], r["n_real"]) for r in found] == [
        (fold, ratio, by, round(84 * ratio))
        for fold in (0, 1)
        for ratio, by in ((1.0, "none"), (0.5, "none"), (0.5, "untuned"), (0.5, "tuned"), (0.5, auto))
    ]
    assert Counter(call.split()[0] for call in made) == {"generate": 13, "finetune.train_lora": 12}
    ledgers = [shards.read_manifest(path)["trained_on"] for path in (tmp_path / "arms").glob("*/shards")]
    assert Counter(map(len, ledgers)) == {0: 1, 75: 4, 76: 6, 84: 2}
    tried = [list(r["mixing_choice"]["tried"]) for r in found if r["generator"] == auto]
    assert tried == [["no synthetic images", "untuned", "tuned"]] * 2
    evaluate(config(tmp_path, **asked))
    assert lines(tmp_path) == found


def test_a_search_ends_in_a_record_a_page_and_a_line(tmp_path, made, capsys):
    asked = {"shots": ("3",), "search": True, "generators": ("untuned", "tuned"), "trials": 4}
    evaluate(config(tmp_path, **asked))
    alone, searched = lines(tmp_path)
    assert (alone["generator"], searched["generator"]) == ("none", "search of untuned, tuned")
    choice = searched["mixing_choice"]
    assert len(choice["tried"]) + len(choice["untried"]) == 4
    assert (choice["chosen"] == "no synthetic images") == (searched["n_synthetic"] == 0)
    printed = " ".join(capsys.readouterr().out.split())
    assert "search: 3-shot" in printed and ("none pays" in printed) == (searched["n_synthetic"] == 0)
    assert ("None pays: with 9 real images, at 3 real images per class" in printed) == (
        searched["n_synthetic"] == 0
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Recipes tried: 3-shot + search" in page
    calls = len(made)
    evaluate(config(tmp_path, **asked))
    assert lines(tmp_path) == [alone, searched]
    assert len(made) == calls


def test_a_ratio_sweep_makes_images_of_its_own_beside_the_given_ones(tmp_path, made):
    write_shards(tmp_path / "given", [], sources.load("demo").classes, count=30, side=64)
    asked = {
        "ratios": ("0.5",),
        "generators": ("given", "tuned", "none"),
        "synthetic": str(tmp_path / "given"),
    }
    evaluate(config(tmp_path / "out", **asked, seeds=2))
    found = lines(tmp_path / "out")
    assert [(r["generator"], r["arm"], r["generator_seed"]) for r in found] == [
        ("given", "ratio", None), ("tuned", "ratio", 0), ("none", "oversampled", None),
    ] * 2  # fmt: skip
    assert len(made) == 2
    ledger = shards.read_manifest(next((tmp_path / "out" / "arms").glob("*/shards")))["trained_on"]
    assert set(ledger) == sources.load("demo").of(TRAIN).hashes()


def test_folds_that_were_divided_by_another_seed_do_not_join(tmp_path, made, refused):
    evaluate(config(tmp_path, folds=2, ratios=("1",)))
    with refused("--output", "folds", "'subset_seed': 0", "'subset_seed': 1"):
        evaluate(config(tmp_path, folds=2, ratios=("1",), seed=1))
    evaluate(config(tmp_path, folds=2, ratios=("1",), seeds=2))
    assert [record["seed"] for record in lines(tmp_path)] == [0, 0, 1, 1]


def test_a_share_gets_the_same_images_whatever_else_is_asked_for(tmp_path, made):
    for name, ratios in (("one", ("0.5",)), ("two", ("0.5", "0"))):
        evaluate(config(tmp_path / name, folds=2, ratios=ratios))
    one, two = (
        [r["train_files"] for r in lines(tmp_path / name) if r["ratio"] == 0.5] for name in ("one", "two")
    )
    assert one == two


def test_an_arm_takes_the_first_images_where_more_were_made(tmp_path, made):
    evaluate(config(tmp_path, shots=("2",)))
    source = tmp_path / "arms"
    evaluate(config(tmp_path, shots=("2",), arm_count=7, seeds=2, vary_seeds=("classifier",)))
    assert [r["n_synthetic"] for r in lines(tmp_path) if r["n_synthetic"]] == [9, 21, 21]
    assert len(list(source.iterdir())) == 1


def test_prompts_that_generate_would_refuse_are_refused_before_anything_is_tuned(tmp_path, made, refused):
    for prompt, reason in (("a {label} {{ pose }}", "'pose' is undefined"), ("{{ label", "end of template")):
        with refused("--arm_prompt", reason):
            evaluate(config(tmp_path / "out", shots=("2",), arm_prompt=(prompt,)))
    assert not made and not (tmp_path / "out").exists()
    evaluate(config(tmp_path / "out", shots=("2",), arm_prompt=("a {label}", "{label} in a tree")))
    assert len(made) == 2


def test_a_mixing_is_chosen_once_for_the_classifiers_of_a_draw(tmp_path, made):
    for seeds in (1, 2):
        evaluate(config(tmp_path, shots=("2",), mixing="auto", seeds=seeds, vary_seeds=("classifier",)))
    first, second = (r["mixing_choice"] for r in lines(tmp_path) if r["mixing"] == "auto 0.8")
    assert first == second


def test_several_commands_into_one_folder_share_a_page_that_names_them(tmp_path, made):
    given = ({"ratios": ("1",)}, {"shots": ("1",)}, {"ratios": ("1",), "margin": 5.0})
    configs = [config(tmp_path, **options) for options in given]
    for one in configs:
        evaluate(one)
    page = (tmp_path / "report.html").read_text()
    commands = [shlex.split(html.unescape(found)) for found in re.findall("<pre>(python -m .*)</pre>", page)]
    assert [cli.parse(Evaluate, words[3:], "evaluate") for words in commands] == configs
    assert page.index("Substitute: ") < page.index("Low-shot: ")
    assert {path.name for path in tmp_path.glob("real_only_*")} == {
        "real_only_ratio.safetensors",
        "real_only_shots.safetensors",
    }


def test_a_kept_classifier_that_saw_a_test_image_measures_nothing(tmp_path, made):
    evaluate(config(tmp_path, folds=2, ratios=("1", "0.5")))
    test = sources.load("demo").of(TEST)
    assert real_only_classifier.features([tmp_path], test, torch.device("cpu")) == {}
    apart = test.keep(photo for photo in test.photos if photo.sha256 not in _kept(tmp_path).trained_on)
    assert list(real_only_classifier.features([tmp_path], apart, torch.device("cpu"))) == [
        real_only_classifier.NAME
    ]


def _kept(folder: Path) -> classifier.Record:
    return classifier.read(folder / "real_only_fold.safetensors")


def test_nothing_is_reported_where_every_run_failed(tmp_path, made, monkeypatch, capsys):
    monkeypatch.setattr("evaluate.experiment.runner.fit", lambda *_: 1 / 0)
    with pytest.raises(FailedError, match="no run has a record; 100% real, seed 0: division") as stopped:
        evaluate(config(tmp_path, ratios=("1",)))
    assert stopped.value.code == 1
    assert "failed: 100% real, seed 0: division by zero" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()


def test_a_failed_arm_is_named_and_the_rest_goes_on(tmp_path, made, monkeypatch, capsys):
    stand_in = OwnGenerator._call

    def fail(self: OwnGenerator, module: str, *options: object) -> None:
        if self.seed == 0:
            raise TuningError("no room [left] on the device")
        stand_in(self, module, *options)

    monkeypatch.setattr(OwnGenerator, "_call", fail)
    with pytest.raises(SystemExit) as stopped:
        run(config(tmp_path, shots=("1",), seeds=2))
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "failed: 25% real, shots 1, seed 0: no room [left] on the device" in printed
    assert "1 runs have no record" in printed
    assert [(r["seed"], r["n_synthetic"]) for r in lines(tmp_path)] == [(0, 0), (1, 0), (1, 9)]
    monkeypatch.setattr(OwnGenerator, "_call", stand_in)
    evaluate(config(tmp_path, shots=("1",), seeds=2))
    assert len(lines(tmp_path)) == 4


def test_an_arm_whose_adapters_saw_other_images_has_no_record(tmp_path, made, monkeypatch, capsys):
    def leak(self: OwnGenerator, module: str, *options: object) -> None:
        if module == "generate":
            write_shards(self.folder / "shards", ["a stranger"], self.real.classes, self.count)

    monkeypatch.setattr(OwnGenerator, "_call", leak)
    with pytest.raises(SystemExit):
        run(config(tmp_path, shots=("1",)))
    assert "its adapters or screens have seen 1 images that are not the arm's" in capsys.readouterr().out
    assert [r["n_synthetic"] for r in lines(tmp_path)] == [0]


def test_untuned_images_that_know_a_photo_have_no_record(tmp_path, made, monkeypatch, capsys):
    def leak(self: OwnGenerator, module: str, *options: object) -> None:
        write_shards(self.folder / "shards", sorted(self.real.hashes()), self.real.classes, self.count)

    monkeypatch.setattr(OwnGenerator, "_call", leak)
    with pytest.raises(SystemExit):
        run(config(tmp_path, shots=("1",), generators=("none", "untuned")))
    assert "have seen 3 images that are not the arm's" in capsys.readouterr().out
    assert [r["generator"] for r in lines(tmp_path)] == ["none"]


def test_an_arm_of_other_defaults_or_versions_is_another_one_but_can_be_shown(tmp_path, made, monkeypatch):
    evaluate(config(tmp_path, shots=("2",)))
    (first,) = (tmp_path / "arms").iterdir()
    monkeypatch.setattr(own_generator, "_defaults", lambda *_: "others")
    evaluate(config(tmp_path, shots=("2",)))
    assert json.loads((tmp_path / "fidelity.json").read_text())["arm"] == "40% real, shots 2, seed 0"
    assert list((tmp_path / "arms").iterdir()) == [first] and len(made) == 2
    evaluate(config(tmp_path, shots=("2",), seeds=2, vary_seeds=("classifier",)))
    assert len(list((tmp_path / "arms").iterdir())) == 2 and len(made) == 4


def test_the_key_of_an_arm_covers_every_default_of_the_commands():
    words = [sys.executable, "-c", own_generator.DEFAULTS, "mini"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    finetune, generate, settings, steering, repaint, tuned = json.loads(done.stdout)
    assert finetune.keys() >= {"rank", "learning_rate", "targets", "loss_weighting", "method"}
    assert generate.keys() >= {"guidance", "screens", "attempts", "shard_size"}
    assert settings == {
        "scheduler": "dpmsolver++",
        "steps": 10,
        "resolution": 64,
        "contrast": 0.0,
        "reading": {"clip_skip": 0, "chunks": 1},
    }
    assert steering["guidance"] == {"low": 2.0, "high": 2.0}
    assert (tuned["lora"]["learning_rate"], tuned["full"]["learning_rate"]) == (1e-3, 5e-6)
    assert repaint["guidance"] == 3.0
    assert repaint["modes"]["background"] == [{"inside": False, "strength": 0.95}]


def test_a_child_does_not_take_itself_for_a_process_of_the_launch():
    parent = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "TORCHELASTIC_RUN_ID": "y", "PATH": "z"}
    assert environment(parent) == {"PATH": "z"}
    assert environment()["PATH"] == os.environ["PATH"]
