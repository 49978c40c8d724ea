"""Resume: N steps equal k, a stop and N - k, and a broken checkpoint is named and skipped."""

import json
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from shell import ENVIRONMENT, TRAIN, command, refusal

from finetune import command as run_command
from finetune import trainer
from finetune.config import TrainLora
from finetune.training import checkpoints, learner, saving
from finetune.training.interrupt import Interrupt
from orchard.cli import signals
from orchard.errors import UserError


def words(base: Path, output: Path, *more: object) -> list[object]:
    options = ["--data", "fruit", "--base", base, "--output", output, "--classes", "apple", "--shots", 6]
    return [*TRAIN, *options, "--batch_size", 2, "--rank", 2, *more]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "apple.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_ten_steps_equal_four_a_stop_and_six(base, tmp_path):
    average = ("--ema_decay", 0.9, "--accumulation", 2, "--noise_offset", 0.1)
    command(tmp_path, *words(base, "straight", "--steps", 10, *average, "--no_sheets"))
    steps = ("--steps", 10, "--save_every", 4, *average, "--preview_every", 3, "--gradient_checkpointing")
    command(tmp_path, *words(base, "off", *steps, "--keep", 0))
    folder = tmp_path / "off" / "checkpoints" / "apple"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000004", "step-000008"]
    shutil.rmtree(folder / "step-000008")
    (tmp_path / "off" / "apple.safetensors").unlink()
    said = command(tmp_path, *words(base, "off", *steps, "--resume", "latest"))
    assert "resuming  apple after step 4" in said
    assert equal(weights(tmp_path / "straight"), weights(tmp_path / "off"))


def test_a_terminated_run_saves_exits_and_goes_on(base, tmp_path):
    steps = ("--steps", 120, "--save_every", 10)
    command(tmp_path, *words(base, "straight", *steps))
    output = tmp_path / "off"
    process = subprocess.Popen(
        list(map(str, words(base, output, *steps))),
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    patience = time.monotonic() + 300
    while not list(output.glob("checkpoints/apple/step-*")) and time.monotonic() < patience:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 143, said
    assert "resume with --resume latest" in said
    assert not (output / "apple.safetensors").exists()
    line = refusal(tmp_path, *words(base, output, *steps))
    assert "holds an unfinished run" in line and "--resume latest" in line
    command(tmp_path, *words(base, output, *steps, "--resume", "latest"))
    assert equal(weights(tmp_path / "straight"), weights(output))
    again = command(tmp_path, *words(base, output, *steps, "--resume", "latest"))
    assert "nothing: all adapters are finished" in again


def test_resume_refuses_what_would_not_be_exact(base, tmp_path):
    line = refusal(tmp_path, *words(base, "out", "--steps", 4, "--resume", "latest"))
    assert "no whole checkpoint" in line and "start without --resume" in line
    command(tmp_path, *words(base, "out", "--steps", 4, "--save_every", 2))
    (tmp_path / "out" / "apple.safetensors").unlink()
    changed = ("--steps", 4, "--resume", "latest", "--learning_rate", 0.01, "--seed", 3)
    line = refusal(tmp_path, *words(base, "out", *changed))
    assert "learning_rate 0.0001 (requested: 0.01)" in line and "seed 0 (requested: 3)" in line
    assert "no such folder" in refusal(tmp_path, *words(base, "out", "--resume", "nowhere"))


class Fixture:
    """A parameter, its optimiser, and checkpoints at the steps asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accelerator = Accelerator(cpu=True)
        network = torch.nn.Linear(3, 1, bias=False)
        family = SimpleNamespace(denoiser=network, text_encoders={}, models={})
        parameters = list(network.parameters())
        self.learner = learner.prepare(family, parameters, TrainLora(ema_decay=0.5), self.accelerator)
        self.optimizer = self.learner.optimizer
        self.parameter = self.learner.parameters[0]

    def save(self, step: int) -> Path:
        self.parameter.sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.learner.update_average()
        return checkpoints.save(self.folder, self.accelerator, self.learner, [0.5] * step, {"seed": 0})

    def load(self, folder: Path) -> None:
        start = checkpoints.read(folder)
        checkpoints.load(start, self.accelerator, self.learner)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "state cut in half": lambda folder: halve(folder / "state.safetensors"),
    "state missing": lambda folder: (folder / "state.safetensors").unlink(),
    "random state cut in half": lambda folder: halve(folder / "random-0.safetensors"),
    "random state missing": lambda folder: (folder / "random-0.safetensors").unlink(),
    "manifest cut in half": lambda folder: halve(folder / "checkpoint.json"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_newest_whole_checkpoint_is_taken_and_the_broken_one_named(tmp_path, damage):
    fixture = Fixture(tmp_path)
    fixture.save(90)
    fixture.save(500)
    damage(fixture.save(1000))
    found, broken = checkpoints.latest(tmp_path)
    assert found is not None and found.step == 500
    assert len(broken) == 1 and "step-001000" in broken[0] and "broken" in broken[0]


def test_checkpoints_are_ordered_by_number_and_pruned(tmp_path):
    fixture = Fixture(tmp_path)
    for step in (90, 1000, 500, 2_000_000):
        fixture.save(step)
    checkpoints.prune(tmp_path, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"step-000500", "step-001000", "step-2000000"}
    checkpoints.prune(tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 3


def test_weights_average_optimizer_and_random_numbers_come_back(tmp_path):
    fixture = Fixture(tmp_path)
    fixture.save(1)
    expected, numbers = fixture.parameter.detach().clone(), torch.rand(2)
    moment = fixture.optimizer.state[fixture.parameter]["exp_avg"].clone()
    average = fixture.learner.average.shadow_params[0].clone()
    fixture.save(2)
    fixture.load(tmp_path / "step-000001")
    assert torch.equal(fixture.parameter, expected)
    assert torch.equal(fixture.optimizer.state[fixture.parameter]["exp_avg"], moment)
    assert torch.equal(fixture.learner.average.shadow_params[0], average)
    assert fixture.learner.average.optimization_step == 1
    assert torch.equal(torch.rand(2), numbers)


def test_nested_state_comes_back_as_it_was(tmp_path):
    inner = {"betas": (0.9, 0.99), "rate": math.inf, "names": ["x"], "step": torch.tensor(3.0), "no": None}
    value = {"state": {0: inner, 1: {}}, "flag": True}
    checkpoints.save_state(tmp_path / "s.safetensors", value)
    assert checkpoints.load_state(tmp_path / "s.safetensors") == value


def test_another_number_of_processes_is_refused(tmp_path):
    fixture = Fixture(tmp_path)
    folder = fixture.save(1)
    manifest = json.loads((folder / "checkpoint.json").read_text())
    shutil.copy(folder / "random-0.safetensors", folder / "random-1.safetensors")
    manifest["files"]["random-1.safetensors"] = manifest["files"]["random-0.safetensors"]
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="by 2 processes, this run has 1"):
        checkpoints.load(checkpoints.read(folder), fixture.accelerator, fixture.learner)


def test_a_signal_is_noted_and_a_second_ctrl_c_stops_at_once(monkeypatch):
    monkeypatch.setattr(signals, "_command", True)
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs the tests in the background
    with Interrupt() as interrupt:
        assert interrupt.exit_code(Accelerator(cpu=True)) == 0
        signal.raise_signal(signal.SIGINT)
        assert interrupt.exit_code(Accelerator(cpu=True)) == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_adapter_begins_alike_whether_or_not_another_one_was_trained_before(
    base, photos, tmp_path, monkeypatch
):
    """With the loss scaler and the random numbers of a run that begins with it."""
    begun: dict[str, list[tuple[float, torch.Tensor]]] = {}
    steps, accelerator_for = trainer.train_steps, run_command.accelerator_for

    def scaled(config):
        accelerator, dtype = accelerator_for(config)
        accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=1)
        return accelerator, dtype

    def noted(family, data, learner, config, accelerator, start):
        torch.rand(1)  # as dropout in a base would draw
        state = accelerator.scaler.get_scale(), torch.get_rng_state()
        begun.setdefault(config.output.name, []).append(state)
        yield from steps(family, data, learner, config, accelerator, start)

    monkeypatch.setattr(run_command, "accelerator_for", scaled)
    monkeypatch.setattr(trainer, "train_steps", noted)
    small = {"steps": 3, "batch_size": 2, "rank": 1, "precision": "fp32", "sheets": False, "cache": "none"}
    for name, classes in (("both", ("apple", "pear")), ("second", ("pear",))):
        places = {"base": str(base), "data": str(photos), "output": tmp_path / name}
        run_command.train(TrainLora(**places, **small, classes=classes))
        AcceleratorState._reset_state(reset_partial_state=True)
    (_, after_another), (alone,) = begun["both"], begun["second"]
    assert after_another[0] == alone[0] == 65536
    assert torch.equal(after_another[1], alone[1])
    assert equal(*(load_file(tmp_path / name / "pear.safetensors") for name in ("both", "second")))


def test_a_checkpoint_brings_the_loss_scaler_back(tmp_path):
    fixture = Fixture(tmp_path)
    scaler = fixture.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    fixture.save(1)
    scaler.scale(torch.ones(1))  # which makes its state
    scaler.update(2.0)
    assert scaler.get_scale() == 2.0
    fixture.load(tmp_path / "step-000001")
    assert fixture.accelerator.scaler.get_scale() == 8.0


def test_a_signal_ends_a_run_of_deepspeed_in_one_line_and_without_a_checkpoint(tmp_path):
    accelerator = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED)
    interrupt = SimpleNamespace(exit_code=lambda _: 143)
    config = TrainLora(output=tmp_path, save_every=0, steps=5)
    of_job = config, accelerator, interrupt, None, [0.5], "apple", {}
    with pytest.raises(saving.StopError, match="DeepSpeed cannot save a checkpoint") as stop:
        saving.save_due(*of_job)
    assert stop.value.code == 143 and not list(tmp_path.iterdir())
    interrupt.exit_code = lambda _: 0
    saving.save_due(*of_job)


def test_options_that_came_or_went_at_their_old_value_change_nothing():
    old = {"seed": 0, "logit_mean": 0.0, "logit_std": 1.0, "mode_scale": 1.29}
    new = {"seed": 0, "shift": 1.0}
    assert checkpoints.changes(old, new) == checkpoints.changes(old, old) == ""
    assert "shift 1.0 (requested: 3.0)" in checkpoints.changes(old, new | {"shift": 3.0})
    assert "logit_mean 0.5" in checkpoints.changes(old | {"logit_mean": 0.5}, new)
