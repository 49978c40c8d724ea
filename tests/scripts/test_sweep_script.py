"""`scripts/sweep.py` with stand-ins for the three commands: what is reused, what is told, what is refused."""

import json
import sys
from pathlib import Path

import pytest

import stages
import sweep


class Commands:
    """Stand-ins that note what they are told; each does its work or is stopped in the middle of it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[str, ...]]] = []
        self.stop = ""

    def _note(self, name: str, options: tuple[object, ...]) -> tuple[str, ...]:
        words = tuple(map(str, options))
        self.told.append((name, words))
        return words

    def finetune(self, *options: object) -> float:
        words = self._note("finetune", options)
        output = Path(words[words.index("--output") + 1])
        (output / "checkpoints" / "apple" / "step-000001").mkdir(parents=True, exist_ok=True)
        if self.stop == "finetune":
            raise SystemExit(130)
        for name in ("apple", "banana", "orange"):
            (output / f"{name}.safetensors").touch()
        return 1.0

    def generate(self, *options: object) -> float:
        words = self._note("generate", options)
        Path(words[words.index("--output") + 1]).mkdir(exist_ok=True)
        if self.stop == "generate":
            raise SystemExit(130)
        return 2.0

    def evaluate(self, *options: object) -> float:
        words = self._note("evaluate", options)
        output = Path(words[words.index("--output") + 1])
        output.mkdir(exist_ok=True)
        (output / "records.jsonl").write_text(json.dumps({"accuracy": 0.9, "nll": 0.3}) + "\n")
        return 3.0


@pytest.fixture
def commands(monkeypatch, fruit, tmp_path):
    """`commands(**options)` runs the sweep; the stand-ins are its attributes."""
    found = Commands()
    for name in ("finetune", "generate", "evaluate"):
        monkeypatch.setattr(stages, name, getattr(found, name))

    def run(**options: object) -> None:
        small = {"data": fruit, "guidance": 2, "steps": 5, "count": 30, "output": tmp_path / "sweep"}
        words = [str(word) for name, value in (small | options).items() for word in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
        sweep.main()

    found.run = run
    return found


def speeds(folder: Path) -> list[str]:
    return [line.rpartition(",")[2] for line in (folder / "sweep.csv").read_text().splitlines()[1:]]


def test_a_stopped_sweep_goes_on_and_says_no_speed_that_it_did_not_measure(commands, tmp_path):
    for command in ("finetune", "generate"):
        commands.stop = command
        with pytest.raises(SystemExit, match="130"):
            commands.run()
    commands.stop = ""
    commands.run()
    told = [words[words.index("--output") + 2 :] for name, words in commands.told if name == "finetune"]
    assert told == [(), ("--resume", "latest")]
    assert speeds(tmp_path / "sweep") == [""]
    commands.run(guidance=3)
    assert speeds(tmp_path / "sweep") == ["45.0"]  # 3 x 30 images in 2 s
    assert [name for name, _ in commands.told].count("finetune") == 2


def test_adapters_and_images_of_other_options_are_not_taken(commands, capsys):
    commands.run()
    for name, value in (("train_steps", 7), ("count", 40), ("base", "other")):
        with pytest.raises(SystemExit, match="2"):
            commands.run(**{name: value})
        assert f"{name} " in capsys.readouterr().err


def test_what_cannot_end_well_is_refused_first(commands, capsys, tmp_path):
    for name, value in (("seeds", 0), ("count", 0), ("data", tmp_path / "nowhere")):
        with pytest.raises(SystemExit, match="2"):
            commands.run(**{name: value})
        assert f"--{name} {value}" in capsys.readouterr().err
    assert not commands.told
