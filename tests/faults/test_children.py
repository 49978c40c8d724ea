"""The commands that evaluate runs for an arm stop with it, however it ends, and save what they have first."""

import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

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
import signal, sys
from evaluate.experiment import child_process
from orchard.cli import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with cli.one_line():
    child_process.call(["sleeper"], sys.stdout)
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
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == "begun\n"
    parent.send_signal(number)
    parent.wait(60)
    if number != signal.SIGKILL:
        assert parent.returncode == 128 + number and (tmp_path / "saved").is_file()
    started = time.monotonic()
    parent.stdout.read()  # the pipe is both's, and ends with the last of them
    assert time.monotonic() - started < 60 and (tmp_path / "saved").is_file()
