"""A run that is asked to stop, wherever it stands and whatever launched it, ends and keeps what it has."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pipelines
import plans
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from conftest import ROOT
from safetensors.torch import load_file
from shell import ENVIRONMENT, TRAIN, TWO, command
from stub_sampler import indices, noise, rows

from finetune.command import run as train
from finetune.config import TrainLora
from finetune.data import prior
from finetune.models.family import Family
from finetune.training import checkpoints
from finetune.training.interrupt import Interrupt
from generate.sampling.sampler import Sampler
from orchard.cli import cli, signals

LAUNCHER = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", *TRAIN[1:])
PATIENCE = 600
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a death")


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A test may leave SIGTERM ignored, as a run does that is about to end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def as_command(monkeypatch) -> None:
    monkeypatch.setattr(signals, "_command", True)


def words(base: Path, photos: Path, output: str, *more: object) -> list[str]:
    options = ("--base", base, "--data", photos, "--classes", "apple", "--output", output, "--cache", "cache")
    sizes = ("--batch_size", 2, "--rank", 1, "--precision", "fp32", "--no_sheets")
    return [str(word) for word in (*options, *sizes, *more)]


def started(folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """All of its processes write into one pipe, which ends with the last of them."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.01)


def require_goes_on(folder: Path, launch: tuple[str, ...], again: list[str], straight: list[str]) -> None:
    """There is a whole checkpoint, from which a run ends in the bits of one that nobody stopped."""
    found, broken = checkpoints.latest(folder / "off" / "checkpoints" / "apple")
    assert found and found.step and not broken
    assert not (folder / "off" / "apple.safetensors").exists()
    assert f"resuming  apple after step {found.step}" in command(folder, *launch, *again)
    command(folder, *launch, *straight)
    weights, expected = (load_file(folder / name / "apple.safetensors") for name in ("off", "straight"))
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


@on_linux
@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        (LAUNCHER, signal.SIGTERM),
        pytest.param(LAUNCHER, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param((*TWO, *TRAIN[1:]), signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param((*TWO, *TRAIN[1:]), signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param((*TWO, *TRAIN[1:]), signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_launcher_that_dies_takes_the_run_along_after_a_checkpoint(
    base, photos, tmp_path, launcher, number
):
    steps = ("--steps", 300, "--save_every", 0)
    process = started(tmp_path, *launcher, *words(base, photos, "off", *steps))
    log = tmp_path / "off" / "logs" / "apple.jsonl"
    wait_for(lambda: log.is_file() and log.read_text().count("\n") > 2, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE)
    assert "stopped; saved off/checkpoints/apple/step-" in said
    again = words(base, photos, "off", *steps, "--resume", "latest")
    require_goes_on(tmp_path, launcher, again, words(base, photos, "straight", *steps))


ORPHAN = """
import os, signal, subprocess, sys, time
if "child" in sys.argv:
    parent = int(sys.argv[2])
    while os.getppid() == parent:
        time.sleep(0.01)
    from orchard.cli import cli
    with cli.one_line():
        print("goes on")
else:
    apart = "TORCHELASTIC_RUN_ID" in os.environ
    subprocess.Popen([sys.executable, sys.argv[0], "child", str(os.getpid())], start_new_session=apart)
"""


@pytest.mark.parametrize(
    ("launched", "said"),
    [
        ({"ACCELERATE_DYNAMO_MODE": "default"}, "stopped; what was finished is kept"),
        pytest.param({"TORCHELASTIC_RUN_ID": "1"}, "stopped; what was finished is kept", marks=on_linux),
        ({}, "goes on"),
    ],
)
def test_a_process_whose_launcher_is_dead_already_does_not_begin(tmp_path, launched, said):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    process = started(tmp_path, sys.executable, str(tmp_path / "orphan.py"), **launched)
    assert process.communicate(timeout=PATIENCE)[0].strip() == said


def stopped(config: TrainLora, capsys: pytest.CaptureFixture[str]) -> str:
    """What a run says on stderr that SIGTERM stops."""
    with pytest.raises(SystemExit) as stop, cli.one_line():
        train(config)
    assert stop.value.code == 143
    AcceleratorState._reset_state(reset_partial_state=True)
    return capsys.readouterr().err.strip().splitlines()[-1]


def at_call(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> list[int]:
    """Let SIGTERM come at that call of a function; the list grows with each of its calls."""
    real, calls = getattr(owner, name), []

    def counted(*arguments, **options):
        calls.append(len(calls) + 1)
        if len(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


@pytest.fixture
def small(base, photos, tmp_path) -> Callable[..., TrainLora]:
    """The configuration of a short run that begins with an empty cache."""

    def config(output: str = "off", **options) -> TrainLora:
        sizes = {"steps": 4, "batch_size": 2, "rank": 1, "precision": "fp32", "sheets": False}
        places = {"output": tmp_path / output, "cache": str(tmp_path / f"{output}-cache")}
        given = {"base": str(base), "data": str(photos), "classes": ("apple",)}
        return TrainLora(**{**given, **places, **sizes, **options})

    return config


def equal(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "apple.safetensors") for folder in (one, other))
    return all(torch.equal(first[key], value) for key, value in second.items())


def test_sigterm_while_photos_are_encoded_ends_the_run_and_keeps_those_that_were(
    small, monkeypatch, capsys, tmp_path
):
    with monkeypatch.context() as patch:
        at_call(patch, Family, "encode_image", 3)
        assert stopped(small(), capsys) == "stopped; what was finished is kept"
    there = list((tmp_path / "off-cache" / "photos").iterdir())
    assert [path.suffix for path in there] == [".safetensors"] * 2
    calls = at_call(monkeypatch, Family, "encode_image", 0)
    train(small())
    assert len(calls) == 2
    train(small("straight"))
    assert equal(tmp_path / "off", tmp_path / "straight")


def test_sigterm_while_the_prior_is_sampled_ends_the_run_and_keeps_its_pictures(
    small, monkeypatch, capsys, tmp_path
):
    options = {"prior_weight": 1.0, "prior_count": 4 * prior.BATCH + 3, "prompt": "a photo of sks {label}"}
    with monkeypatch.context() as patch:
        at_call(patch, prior, "sample", 4)
        assert stopped(small(**options), capsys) == "stopped; what was finished is kept"
    assert len(list((tmp_path / "off" / "prior").iterdir())) == 3
    calls = at_call(monkeypatch, prior, "sample", 0)
    train(small(**options))
    assert len(calls) == 2
    train(small("straight", **options))
    assert equal(tmp_path / "off", tmp_path / "straight")


def test_sigterm_while_a_preview_is_sampled_saves_the_step_and_leaves_the_preview(
    small, monkeypatch, capsys, tmp_path
):
    with monkeypatch.context() as patch:
        calls = at_call(patch, Interrupt, "stop_sampling", 5)
        said = stopped(small(preview_every=2), capsys)
    assert len(calls) == 5  # of 20 denoising steps
    folder = tmp_path / "off" / "checkpoints" / "apple" / "step-000002"
    assert said == f"stopped; saved {folder}; resume with --resume latest"
    assert checkpoints.read(folder).step == 2
    assert not (tmp_path / "off" / "previews").exists()
    train(small(resume="latest"))
    train(small("straight"))
    assert equal(tmp_path / "off", tmp_path / "straight")


def test_sigterm_while_the_last_sheet_is_sampled_leaves_it_out_and_saves_the_adapter(
    small, monkeypatch, capsys, tmp_path
):
    stale = tmp_path / "off" / "apple-samples.png"
    stale.parent.mkdir()
    stale.touch()
    with monkeypatch.context() as patch:
        calls = at_call(patch, Interrupt, "stop_sampling", 20 + 5)  # the first 20 show the base alone
        said = stopped(small(sheets=True), capsys)
    assert len(calls) == 25 and not stale.exists()
    assert said == f"stopped; saved {tmp_path / 'off' / 'apple.safetensors'}; resume with --resume latest"
    train(small(resume="latest"))
    assert (tmp_path / "off" / "README.md").is_file()
    train(small("straight"))
    assert equal(tmp_path / "off", tmp_path / "straight")


def test_the_first_signal_counts_whatever_a_dying_launcher_adds(as_command):
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.exit_code(Accelerator(cpu=True)) == 130


def test_a_closed_terminal_is_a_wish_to_stop_unless_nohup_says_otherwise(as_command):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupt.number
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.number == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_images_of_a_shard_that_is_not_full_are_kept_when_generate_is_stopped(tmp_path, generate):
    def draw(row):
        if row.index == 5:
            signal.raise_signal(signal.SIGTERM)
        return noise(row)

    with pytest.raises(SystemExit), cli.one_line():
        generate(tmp_path / "off", draw, count=12, shard_size=12)
    assert indices(tmp_path / "off") == [0, 1, 2, 3, 4]
    assert generate(tmp_path / "off", count=12, shard_size=12) == 8  # a batch of four is sampled whole
    assert generate(tmp_path / "straight", count=12, shard_size=12) == 12
    assert rows(tmp_path / "off") == rows(tmp_path / "straight")


def test_a_batch_that_is_under_way_is_broken_off_with_the_run(base):
    pipe = pipelines.load(base)[1]
    sampler = Sampler(pipe, plans.settings(steps=50), batch_size=2)
    calls, begun = [], threading.Event()

    def count(*_):
        calls.append(0)
        if len(calls) == 53:  # the third step of the second batch, while the first one is looked at
            begun.set()
            sampler.unwanted.wait(PATIENCE)

    pipe.unet.register_forward_hook(count)
    (shard,) = plans.class_plan(count=4, steering=plans.led(guidance=1.0)).shards(4)
    images = sampler.sample(shard.batches(2))
    next(images)
    assert begun.wait(PATIENCE)
    images.close()
    assert len(calls) == 53
