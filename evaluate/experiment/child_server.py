"""``python -m evaluate.experiment.child_server PID``: runs commands for the process PID, and ends with it.

A request is a line of JSON, and its answer a line with the exit code. Each command is forked from here, where
its imports are made; not where there is a GPU, which a process cannot use that was forked from one that has
looked for it.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from orchard.cli import signals

FORKS = sys.platform.startswith("linux") and not torch.accelerator.is_available()
OURS = ("finetune", "generate", "classify")
LATER = (
    *("datasets", "imagehash", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.schedulers.scheduling_dpmsolver_multistep",
)
"""What commands import when they need it."""


def serve() -> None:
    """Answer requests until nobody can make any more."""
    # What imports print must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    context: Any = multiprocessing.get_context("fork" if FORKS else "spawn")
    for line in sys.stdin:
        request = json.loads(line)
        if FORKS:
            _import(request["words"][0])
        child = context.Process(target=_run, args=(os.getpid(),), kwargs=request)
        child.start()
        try:
            child.join()
        finally:
            if child.is_alive():
                child.terminate()
                child.join()
        print(child.exitcode, file=answers, flush=True)


def _import(module: str) -> None:
    """Whatever a command of ours imports; a later one of the same kind finds it made."""
    package = module.partition(".")[0]
    for name in (f"{package}.command", *LATER) if package in OURS else ():
        importlib.import_module(name)


def _run(parent: int, words: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> None:
    """What the interpreter does with ``-m MODULE …``, in a process that ends with its parent."""
    # SIG_DFL would lose a signal that has come and is not handled yet.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(words)
    signals.end_with(parent)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    signals.on_terminate()
    try:
        signals.end_with(int(sys.argv[1]))
        serve()
    except (signals.Terminated, KeyboardInterrupt) as stop:
        raise SystemExit(signals.code(stop)) from None
