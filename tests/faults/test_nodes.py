"""Two machines with files of their own and a common folder: equal results, and what a lost machine means."""

import os
import shutil
import signal
import time
from pathlib import Path

import nodes
import numpy as np
import pipelines
import pytest
import shell
import stub_sampler
from nodes import Node
from safetensors.torch import load_file

from evaluate.records import records

pytestmark = [pytest.mark.slow, pytest.mark.needs("networks")]
MINUTE = 60
DATA = ("--data", "photos", "--precision", "fp32")
TRAIN = (*DATA, "--base", "base", "--classes", "apple", "--rank", 1, "--batch_size", 2, "--no_sheets")
SAMPLE = (*DATA, "--base", "base", "--classes", *stub_sampler.CLASSES, "--batch_size", 4, "--shard_size", 4)
SCORE = (*DATA, "--ratios", 1, 0.5, "--size", 32, "--steps", 1, "--batch_size", 4, "--seeds", 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a base and photos, as each machine has them."""
    folder = tmp_path_factory.mktemp("files")
    pipelines.tiny(folder / "base")
    stub_sampler.photos(folder / "photos")
    return folder


@pytest.fixture
def machines(tmp_path, files):
    with nodes.two(tmp_path) as found:
        for node in found:
            shutil.copytree(files, node.folder, dirs_exist_ok=True)
        yield found


@pytest.fixture
def common(tmp_path):
    """The folder that both see."""
    (tmp_path / "common").mkdir()
    return tmp_path / "common"


def require_close(one: Path, other: Path) -> None:
    """One adapter in both folders, to float noise."""
    first, second = (load_file(folder / "apple.safetensors") for folder in (one, other))
    for key, value in first.items():
        np.testing.assert_allclose(second[key], value, atol=2e-5, err_msg=key)


def plain(folder: Path) -> list[dict]:
    """Records without what no two runs have in common."""
    found = [
        {name: value for name, value in record.items() if not name.startswith("seconds")}
        for record in records.read(folder)
    ]
    return sorted(found, key=lambda record: str(records.key(record)))


def test_two_machines_make_what_one_process_makes(machines, common, files):
    train = (shell.TRAIN[1], *TRAIN, "--steps", 4)
    launched = [node.launch(*train, "--output", common / "two") for node in machines]
    assert [one.wait(nodes.PATIENCE) for one in launched] == [0, 0], machines[0].said + machines[1].said
    assert "processes 2" in machines[0].said
    shell.command(files, *shell.TRAIN, *TRAIN, "--steps", 4, "--output", common / "one")
    require_close(common / "one", common / "two")

    sample = (*SAMPLE, "--count", 10, "--steps", 2)
    nodes.run(machines, *shell.GENERATE, *sample, "--output", common / "shards-two")
    shell.command(files, *shell.GENERATE, *sample, "--output", common / "shards")
    made = [stub_sampler.rows(common / name) for name in ("shards", "shards-two")]
    assert made[0] == made[1] and len(made[0]) == 20

    score = (*SCORE, "--synthetic", common / "shards")
    nodes.run(machines, *shell.EVALUATE, *score, "--output", common / "experiment-two")
    shell.command(files, *shell.EVALUATE, *score, "--output", common / "experiment")
    found = [plain(common / name) for name in ("experiment", "experiment-two")]
    assert found[0] == found[1] and found[0]


def wait_for(path: Path, lines: int) -> None:
    """Until the file has so many lines."""
    end = time.monotonic() + nodes.PATIENCE
    while not path.is_file() or path.read_text().count("\n") < lines:
        assert time.monotonic() < end
        time.sleep(0.01)


def told(node: Node) -> str:
    """The one line that a process ends with."""
    assert "Traceback" not in node.said
    (line,) = [line for line in node.said.splitlines() if line.startswith("error: ")]
    return line


def test_a_network_that_fails_is_told_on_both_sides_and_training_goes_on_from_the_checkpoint(
    machines, common, files
):
    words = (*shell.TRAIN, *TRAIN, "--steps", 40, "--save_every", 5, "--resume", "latest")
    running = [node.start(*words[:-2], "--output", common / "off") for node in machines]
    wait_for(common / "off" / "logs" / "apple.jsonl", 7)
    machines[1].cut_off()
    begun = time.monotonic()
    assert nodes.wait(running) == [os.EX_TEMPFAIL] * 2
    assert time.monotonic() - begun < MINUTE
    for node, other in zip(machines, (1, 0), strict=True):
        assert f"process {other} of 2" in told(node) and "network is down" in told(node)
    machines[1].connect()
    assert "resuming  apple after step" in nodes.run(machines, *words, "--output", common / "off")
    shell.command(files, *words[:-2], "--output", common / "one")
    require_close(common / "one", common / "off")


def test_a_machine_that_dies_costs_the_others_no_image_that_is_sampled(machines, common, files):
    words = (*shell.GENERATE, *SAMPLE, "--count", 20, "--steps", 100)
    running = [node.start(*words, "--output", common / "killed") for node in machines]
    end = time.monotonic() + nodes.PATIENCE
    while not list(common.glob("killed/data/*.parquet")):
        assert time.monotonic() < end
        time.sleep(0.01)
    nodes.kill(running[1])
    begun = time.monotonic()
    assert nodes.wait(running) == [os.EX_TEMPFAIL, -signal.SIGKILL]
    assert time.monotonic() - begun < MINUTE
    assert "process 1 of 2" in told(machines[0]) and "the same command" in told(machines[0])
    there = stub_sampler.rows(common / "killed")
    assert 0 < len(there) < 40
    nodes.run(machines, *words, "--output", common / "killed")
    shell.command(files, *words, "--output", common / "whole")
    assert stub_sampler.rows(common / "killed") == stub_sampler.rows(common / "whole")


def test_machines_with_other_photos_are_told_before_any_work(machines, common):
    next((machines[1].folder / "photos" / "train" / "apple").iterdir()).unlink()
    words = (*shell.TRAIN, *TRAIN, "--steps", 2, "--output", common / "off")
    running = [node.start(*words) for node in machines]
    assert nodes.wait(running) == [2, 2]
    assert told(machines[0]) == told(machines[1])
    assert "not all processes do the same: process 1 has apple: photos" in told(machines[0])
    assert not list(common.rglob("*.safetensors"))
