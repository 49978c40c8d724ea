"""The commands as users type them, run in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

TRAIN = (sys.executable, str(ROOT / "finetune" / "train_lora.py"))
GENERATE = (sys.executable, "-m", "generate")
CLASSIFY = (sys.executable, "-m", "classify")
EVALUATE = (sys.executable, "-m", "evaluate")
TWO = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "200",
}


def command(folder: Path, *words: object, code: int = 0, **environment: str) -> str:
    """Run in ``folder``, expect the exit code, give back stdout and stderr together."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def refusal(folder: Path, *words: object, **environment: str) -> str:
    """The one line of an error with exit code 2; nothing may have been written."""
    before = sorted(folder.rglob("*"))
    output = command(folder, *words, code=2, **environment)
    assert "Traceback" not in output
    line = output.strip().splitlines()[-1]
    assert line.startswith("error: "), output
    assert sorted(folder.rglob("*")) == before
    return line
