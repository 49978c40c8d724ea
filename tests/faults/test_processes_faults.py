"""`python -m generate` on two processes that are killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import launches
import pytest
from conftest import ROOT
from disturb import Fault, Touches
from shell import ENVIRONMENT, GENERATE, TWO, command
from stub_sampler import rows

SPLITS = ("train", "rejected")
TOUCHES = 90
"""So often one of two processes touches the folder; one that goes on has less to do, and may end well."""


def found(folder):
    return {split: rows(folder, split) for split in SPLITS}


@pytest.mark.slow
def test_200_rows_are_the_same_after_twenty_kills_of_two_processes(tmp_path, base, photos):
    options = {
        "base": str(base),
        "data": str(photos),
        "classes": ("apple",),
        "count": 200,
        "steps": 1,
        "guidance": 1.0,
        "batch_size": 8,
        "shard_size": 8,
        "precision": "fp32",
    }
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert launches.wait(launches.start(2, options | {"output": str(whole)})) == [0, 0]
    assert len(rows(whole)) == 200
    chance = random.Random(0)
    kills, before = 0, 0
    while kills < 20:
        fault = Fault(kind="kill", at=chance.randint(1, TOUCHES), share=chance.random())
        dying = {chance.randrange(2): Touches(folder, fault)}
        if not launches.killed(launches.start(2, options | {"output": str(folder)}, hooks=dying)):
            assert found(folder) == found(whole)
            shutil.rmtree(folder)
            before = 0
            continue
        there = len(rows(folder))
        assert before <= there
        assert not (folder / "manifest.json").exists() or there == 200
        kills, before = kills + 1, there
    assert launches.wait(launches.start(2, options | {"output": str(folder)})) == [0, 0]
    assert found(folder) == found(whole)
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_torchrun_killed_in_the_middle_goes_on(tmp_path, base, photos):
    words = ("--base", base, "--data", photos, "--classes", "apple", "--count", 40, "--steps", 10)
    words = (*words, "--batch_size", 4, "--shard_size", 4, "--precision", "fp32")
    launch = [str(word) for word in (*TWO, "-m", "generate", *words, "--output", "killed")]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        launch, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and len(list(tmp_path.rglob("train-*.parquet"))) < 3:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    command(tmp_path, *launch)
    command(tmp_path, sys.executable, *GENERATE[1:], *words, "--output", "whole")
    assert found(tmp_path / "killed") == found(tmp_path / "whole")
