"""The commands that evaluate runs for an arm end with it, however it ends."""

import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

CHILD = "import time; print('begun', flush=True); time.sleep(600)"
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "evaluate.bound", str(os.getpid()), "sleeper"])
child.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a parent's death")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(tmp_path, number):
    (tmp_path / "sleeper.py").write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == "begun\n"
    parent.send_signal(number)
    parent.wait(60)
    started = time.monotonic()
    assert parent.stdout.read() == ""  # the pipe is both's, and ends with the last of them
    assert time.monotonic() - started < 60
