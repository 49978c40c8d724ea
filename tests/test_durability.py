"""Runs that are killed, run out of disk, or meet another one on the same folder."""

import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
import time

import launches
import pipelines
import pytest
import stub_sampler
from conftest import ROOT
from shell import ENVIRONMENT, GENERATE, TWO, command
from stub_sampler import rows

SPLITS = ("train", "rejected")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return stub_sampler.photos(tmp_path_factory.mktemp("real") / "photos")


def found(folder):
    return {split: rows(folder, split) for split in SPLITS}


def test_a_second_writer_is_refused_and_changes_nothing(tmp_path, monkeypatch, base, photos, refused):
    (tmp_path / "s").mkdir()
    handle = os.open(tmp_path / "s", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    with refused("another run is writing there"):
        stub_sampler.generate(monkeypatch, base, tmp_path / "s", data=str(photos))
    assert list((tmp_path / "s").iterdir()) == []
    os.close(handle)
    stub_sampler.generate(monkeypatch, base, tmp_path / "s", data=str(photos))
    assert len(rows(tmp_path / "s")) == 10


def test_a_full_disk_leaves_whole_shards_and_can_be_gone_on_from(
    tmp_path, monkeypatch, base, photos, refused
):
    options = {"count": 20, "data": str(photos)}
    stub_sampler.generate(monkeypatch, base, tmp_path / "whole", **options)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole" / "data" / "train-apple-00002.parquet").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2000, limits[1]))
    try:
        with refused("train-apple-00000.parquet", "cannot be written"):
            stub_sampler.generate(monkeypatch, base, tmp_path / "s", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "s").rglob("*.p*")) == []
    stub_sampler.generate(monkeypatch, base, tmp_path / "s", **options)
    assert found(tmp_path / "s") == found(tmp_path / "whole")


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
