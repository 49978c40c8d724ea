"""`python -m generate` on two processes that are killed."""

import os
import random
import signal
import subprocess
import sys
import time

import launches
import pytest
from conftest import ROOT
from shell import ENVIRONMENT, GENERATE, TWO, command
from stub_sampler import rows

SPLITS = ("train", "rejected")


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
    assert launches.wait(launches.start(2, options | {"output": str(tmp_path / "whole")})) == [0, 0]
    chance = random.Random(0)
    folder = tmp_path / "killed"
    there = []
    for _ in range(20):
        processes = launches.start(2, options | {"output": str(folder)})
        _wait_for(folder, chance.randint(0, 2), processes)
        time.sleep(chance.uniform(0, 0.2))
        launches.kill(processes)
        assert not (folder / "manifest.json").exists() or len(rows(folder)) == 200
        there.append(len(rows(folder)))
    assert len(set(there)) > 5
    assert launches.wait(launches.start(2, options | {"output": str(folder)})) == [0, 0]
    assert len(rows(folder)) == 200
    assert found(folder) == found(tmp_path / "whole")
    assert not list(folder.rglob("*.part"))


def _wait_for(folder, shards, processes):
    """Until that many more shards are there, or the processes have ended."""
    wanted = len(list(folder.rglob("*.parquet"))) + shards
    while len(list(folder.rglob("*.parquet"))) < wanted and all(one.is_alive() for one in processes):
        time.sleep(0.002)


@pytest.mark.slow
def test_torchrun_killed_in_the_middle_goes_on(tmp_path, base, photos):
    words = ("--base", base, "--data", photos, "--classes", "apple", "--count", 40, "--steps", 2)
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
