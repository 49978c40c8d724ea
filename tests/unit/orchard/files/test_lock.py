"""Processes that write one file take turns; those of one run have to see one folder."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import launches
import pytest
from conftest import ROOT
from shell import ENVIRONMENT

from orchard import devices
from orchard.errors import UserError
from orchard.files import lock
from orchard.files.atomic import whole_file


def test_the_second_writer_of_a_file_waits_for_the_first(tmp_path):
    path, order = tmp_path / "entry", []

    def second():
        with whole_file(path, shared=True) as aside:
            order.append(path.read_text())
            aside.write_text("second")

    with whole_file(path, shared=True) as aside:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and order == []
        aside.write_text("first")
    thread.join(30)
    assert order == ["first"] and path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / "entry.part").write_text("half of something longer")
    with whole_file(tmp_path / "entry", shared=True) as aside:
        aside.write_text("whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def hold(options, draw):
    """Write to the output from the folder of this process's rank, and put down what came of it."""
    os.chdir(options["folders"][int(os.environ["RANK"])])
    output = Path(options["output"])
    output.mkdir(exist_ok=True)
    state = devices.processes()
    lock.PATIENCE = 0.2
    try:
        with lock.writing(output, state):
            said = "held"
    except UserError as error:
        said = str(error)
    Path(f"said{state.process_index}").write_text(said)
    state.wait_for_everyone()
    state.destroy_process_group()


def said_by_two(folders, output="out"):
    options = {"folders": list(map(str, folders)), "output": str(output)}
    assert launches.wait(launches.start(2, options, call=hold)) == [0, 0]
    return [(Path(folder) / f"said{rank}").read_text() for rank, folder in enumerate(folders)]


def test_processes_that_do_not_see_one_folder_are_all_told_so_at_the_start(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    first, second = said_by_two(folders)
    assert first == second
    assert "--output out: what process 0 writes there is not seen by process 1 of 2" in first
    assert "a disk that they all share" in first
    assert not [path for folder in folders for path in (folder / "out").iterdir()]


def test_processes_that_see_one_folder_leave_no_trace_of_having_looked(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{lock.TOKEN}0").touch()  # of a run that was killed at that moment
    (tmp_path / "work").mkdir()
    assert said_by_two([tmp_path, tmp_path / "work"], tmp_path / "out") == ["held", "held"]
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("generate", "--data", "demo", "--count", "4", "--steps", "1"),
        ("finetune.train_lora", "--data", "demo", "--steps", "1", "--batch_size", "2"),
        ("evaluate", "--data", "demo", "--ratios", "1", "--seeds", "1", "--steps", "1"),
    ],
)
def test_each_command_says_it_in_one_line_before_any_work(tmp_path, words):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = []
    for rank in ("0", "1"):
        folder = tmp_path / rank
        folder.mkdir()
        own = {"RANK": rank, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, **ENVIRONMENT, **place, **own}
        command = [sys.executable, "-m", *words]
        ranks.append(
            subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for process in ranks:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert "is not seen by process 1 of 2" in line and "Traceback" not in errors
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
