"""The commands that evaluate runs for an arm stop with it, however it ends, and save what they have first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from conftest import ROOT

from evaluate.experiment import child_process

CHILD = """
import pathlib, signal, time
from orchard.cli import signals
signal.signal(signal.SIGTERM, signals._raise)
try:
    print("begun", flush=True)
    time.sleep(600)
finally:
    time.sleep(1)  # longer than a parent that does not wait would live
    pathlib.Path("saved").touch()
"""
PARENT = """
import pathlib, signal
from evaluate.experiment import child_process
from orchard.cli import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with cli.one_line():
    child_process.call(["sleeper"], pathlib.Path("log"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a parent's death")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_saves_and_ends_with_its_parent(tmp_path, number):
    (tmp_path / "sleeper.py").write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout
    until(lambda: (tmp_path / "log").is_file() and (tmp_path / "log").read_text() == "begun\n")
    parent.send_signal(number)
    parent.wait(60)
    if number != signal.SIGKILL:
        assert parent.returncode == 128 + number and (tmp_path / "saved").is_file()
    started = time.monotonic()
    parent.stdout.read()  # the pipe is everybody's, and ends with the last of them
    assert time.monotonic() - started < 60 and (tmp_path / "saved").is_file()


def until(happens: Callable[[], bool]) -> None:
    for _ in range(1200):
        if happens():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_commands_run_one_after_the_other_in_the_folder_and_environment_of_now(tmp_path, monkeypatch):
    (tmp_path / "teller.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.getcwd(), os.environ['WORD'])\nsys.exit(int(sys.argv[1]))"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    child_process._server.cache_clear()
    try:
        for code, word in ((0, "first"), (3, "second")):
            monkeypatch.setenv("WORD", word)
            assert child_process.call(["teller", str(code)], tmp_path / "log") == code
        said = (tmp_path / "log").read_text().splitlines()
        assert said == [f"['0'] {tmp_path} first", f"['3'] {tmp_path} second"]
        (tmp_path / "killer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        assert child_process.call(["killer"], tmp_path / "log") == -signal.SIGKILL
        (tmp_path / "wild.py").write_text("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
        assert child_process.call(["wild"], tmp_path / "log") == -signal.SIGKILL
        assert child_process.call(["teller", "0"], tmp_path / "log") == 0
        idle = child_process._server(os.getpid())
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(60) == 128 + signal.SIGTERM
        assert child_process.call(["teller", "3"], tmp_path / "log") == 3
    finally:
        child_process._server.cache_clear()
