"""Processes forked from one that has imported what the commands need, so that a start costs no imports."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
CONTEXT = multiprocessing.get_context("forkserver")
# First the clock, before anything takes hold of the real one. What the commands import only when they need
# it would else be imported by every process anew.
CONTEXT.set_forkserver_preload(
    [
        "shifted_clock",
        "same_commit",
        "stub_sampler",
        *("generate.command", "review.command", "classify.command", "evaluate.command", "finetune.command"),
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "diffusers.schedulers.scheduling_dpmsolver_multistep",
        *("datasets", "imagehash", "matplotlib.figure", "matplotlib.backends.backend_agg"),
        *("matplotlib.backends.backend_svg", "torchvision.models", "scipy.stats", "sklearn.linear_model"),
    ]
)


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that runs ``target``, a function of a module."""
    _serve()
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def _serve() -> None:
    """Start the server where there is none; it finds modules by the environment alone."""
    places = (HELPERS, TESTS, TESTS / "faults", TESTS.parent, *filter(None, [os.environ.get("PYTHONPATH")]))
    imported_with = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, places)),
    }
    with mock.patch.dict(os.environ, imported_with):
        forkserver.ensure_running()
