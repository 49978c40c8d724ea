"""Commands of ours run from one of several processes: each a run of its own, in a process of its own.

They are started by `evaluate.experiment.child_server`, which has made their imports: most of what a short one
costs.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def call(words: Sequence[str], log: Path) -> int:
    """Run a module of ours to its end, with its output behind what is in ``log``; its exit code.

    Whatever stops this process asks the command to stop too, and waits until it has saved what it has.
    """
    server = _server(os.getpid())
    if server.poll() is not None:  # a Ctrl-C between two calls, as in a notebook, ends it as well
        _server.cache_clear()
        server = _server(os.getpid())
    assert server.stdin and server.stdout
    places = {"log": str(log.absolute()), "folder": str(Path.cwd())}
    request = {"words": words, "environment": environment(), **places}
    try:
        print(json.dumps(request), file=server.stdin, flush=True)
        answer = server.stdout.readline()
    except BaseException:
        _end(server)
        raise
    return int(answer) if answer else _end(server)


@functools.cache
def _server(parent: int) -> "subprocess.Popen[str]":
    """The server of this process."""
    words = [sys.executable, "-m", "evaluate.experiment.child_server", str(parent)]
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )


def _end(server: "subprocess.Popen[str]") -> int:
    """Its exit code."""
    _server.cache_clear()
    server.terminate()
    try:
        return server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()
