"""Arms with generators of their own, through the real command: made once, shared, resumed, refused."""

import json
import os
from pathlib import Path

import pipelines
import pytest
from shell import EVALUATE, TWO, command, refusal

from evaluate.children import environment

SMALL = ("--data", "demo", "--steps", 3, "--batch_size", 4, "--precision", "fp32", "--size", 32)
OWN = ("--base", "base", "--arm_steps", 1, "--arm_count", 3)
SHOTS = (*SMALL, *OWN, "--shots", "1,2", "--seeds", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a low-shot experiment ran."""
    folder = tmp_path_factory.mktemp("arms")
    pipelines.tiny(folder / "base")
    command(folder, *EVALUATE, *SHOTS, "--external", "fruit")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]


def plain(record: dict) -> dict:
    """A record without what no two runs have in common."""
    return {name: value for name, value in record.items() if not name.startswith("seconds")}


def test_low_shot_arms_tune_on_their_own_images_alone(folder):
    found = lines(folder / "evaluation")
    assert [(r["arm"], r["shots"], r["n_real"], r["n_synthetic"]) for r in found] == [
        ("shots", 1, 3, 0), ("shots", 1, 3, 9), ("shots", 2, 6, 0), ("shots", 2, 6, 9),
    ]  # fmt: skip
    arms = sorted((folder / "evaluation" / "arms").iterdir())
    ledgers = [set(json.loads((arm / "shards" / "manifest.json").read_text())["trained_on"]) for arm in arms]
    assert sorted(map(len, ledgers)) == [3, 6]
    assert min(ledgers, key=len) < max(ledgers, key=len)
    assert not any((arm / "photos").exists() for arm in arms)


def test_external_sets_are_scored_apart(folder):
    for record in lines(folder / "evaluation"):
        assert len(record["predictions"]) == 48
        external = record["external"]["fruit"]
        assert len(external["predictions"]) == 275
        right = [
            max(p["probabilities"], key=p["probabilities"].get) == p["truth"] for p in external["predictions"]
        ]
        assert external["accuracy"] == pytest.approx(sum(right) / 275)


def test_a_stopped_sweep_goes_on_with_the_images_it_made(folder):
    path = folder / "evaluation" / "records.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    made = {file: file.stat().st_mtime_ns for file in path.parent.glob("arms/*/*/*")}
    path.write_text(whole[0] + whole[2] + whole[3][:50])
    command(folder, *EVALUATE, *SHOTS, "--external", "fruit")
    assert {file: file.stat().st_mtime_ns for file in path.parent.glob("arms/*/*/*")} == made
    again = [plain(record) for record in lines(path.parent)]
    assert sorted(again, key=str) == sorted((plain(json.loads(line)) for line in whole), key=str)


def test_two_processes_leave_the_records_of_one(folder):
    words = (*TWO, "-m", "evaluate", *SHOTS, "--external", "fruit", "--output", "both")
    output = command(folder, *words)
    assert "processes 2" in output
    assert output.count("report:") == 1
    one, two = (lines(folder / name) for name in ("evaluation", "both"))
    assert sorted(map(plain, one), key=str) == sorted(map(plain, two), key=str)


def test_a_failed_arm_is_named_and_the_rest_goes_on(folder):
    broken = ("--data", "demo", *SMALL[2:], *OWN, "--shots", "1", "--seeds", 2, "--output", "broken")
    arms = folder / "broken" / "arms"
    arms.mkdir(parents=True)
    one = next(arm.name for arm in (folder / "evaluation" / "arms").iterdir() if _shots(arm) == 3)
    (arms / one).write_text("a file where the folder has to be")
    output = command(folder, *EVALUATE, *broken, code=1)
    assert "failed: 25% real, shots 1, seed 0: " in output
    assert "1 runs have no record" in output
    assert "share" not in output.splitlines()[-1]
    assert len(lines(folder / "broken")) == 3
    (arms / one).unlink()
    command(folder, *EVALUATE, *broken)
    assert len(lines(folder / "broken")) == 4


def _shots(arm: Path) -> int:
    return len(json.loads((arm / "shards" / "manifest.json").read_text())["trained_on"])


def test_cross_validation_and_a_chosen_mixing_end_in_records(folder):
    words = (*SMALL, *OWN, "--folds", 2, "--ratios", "1", "0.5", "--seeds", 1, "--mixing", "auto")
    output = command(folder, *EVALUATE, *words, "--output", "folds")
    assert "of it in the network" in output
    found = lines(folder / "folds")
    assert [(r["fold"], r["repeat"], r["mixing"]) for r in found] == [
        (0, 0, "union"), (0, 0, "auto"), (1, 0, "union"), (1, 0, "auto"),
    ]  # fmt: skip
    tested = [p["file"] for r in found if r["mixing"] == "union" for p in r["predictions"]]
    assert len(tested) == len(set(tested)) == 168
    for record in found:
        choice = record["mixing_choice"]
        assert (choice is None) == (record["mixing"] == "union")
        if choice:
            assert choice["chosen"] == min(choice["tried"], key=choice["tried"].get)
            assert len(choice["tried"]) == 8
            assert (record["n_synthetic"] == 0) == (choice["chosen"] == "no synthetic images")


def test_options_that_make_no_sense_are_refused(tmp_path):
    assert "--folds 1" in refusal(tmp_path, *EVALUATE, "--folds", 1)


def test_a_child_does_not_take_itself_for_a_process_of_the_launch():
    parent = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "TORCHELASTIC_RUN_ID": "y", "PATH": "z"}
    assert environment(parent) == {"PATH": "z"}
    assert "PATH" in environment() and "PATH" in os.environ
