"""Which operators our loops spend their time in."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from bench import classifying, generation, training
from classify.config import Training
from orchard.datasets import demo
from orchard.images.images import TRAIN

ROWS = 8
STEPS = 5
"""Of the classifier."""


def tables(trained: training.Shape, sampled: generation.Setup) -> Iterator[Table]:
    """A table for a step of finetune, a batch of generate, and `STEPS` steps of evaluate."""
    _, steps = training.steps_of("ours", replace(trained, steps=2))
    yield table("train", lambda: next(steps))
    pipe, batch = generation.load(sampled), replace(sampled, rows=generation.BATCH)
    with tempfile.TemporaryDirectory() as folder:
        yield table("generate", lambda: generation.ours(batch, Path(folder), pipe, depth=0))
    learning = classifying.ours(demo.render().of(TRAIN), Training(), sampled.dtype)
    yield table("evaluate", lambda: sum(itertools.islice(learning, STEPS)))


def table(name: str, work: Callable[[], Any]) -> Table:
    """The operators that take most of the processor's time in a second call of ``work``."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    times = sorted(((event.self_cpu_time_total, event.key) for event in found.key_averages()), reverse=True)
    total = sum(time for time, _ in times)
    shares = Table(name, "share of the time")
    for time, key in times[:ROWS]:
        shares.add_row(key, f"{time / total:.1%}")
    return shares
