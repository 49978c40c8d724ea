"""Commands of ours run from one of several processes: each a run of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

import torch

OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")
PREFIXES = ("TORCHELASTIC_", "MASTER_", "ACCELERATE_", "PMI_", "OMPI_")
VISIBLE = "CUDA_VISIBLE_DEVICES"
PATIENCE = 60
"""Seconds that a command which is asked to stop has for saving what it has."""


def environment(parent: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a child that must not take itself for one of this launch's processes.

    It sees the one GPU that this process uses, where there is one.
    """
    kept = {
        name: value for name, value in parent.items() if name not in OURS and not name.startswith(PREFIXES)
    }
    if torch.cuda.is_available():
        device = torch.cuda.current_device()
        visible = [word for word in parent.get(VISIBLE, "").split(",") if word]
        kept[VISIBLE] = visible[device] if visible else str(device)
    return kept


def call(words: Sequence[str], output: IO[str]) -> int:
    """Run a module of ours to its end, with its output in a file; its exit code.

    Whatever stops this process asks the command to stop too, and waits until it has saved what it has.
    """
    command = [sys.executable, "-m", "evaluate.experiment.child_main", str(os.getpid()), *words]
    child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
