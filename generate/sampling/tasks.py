"""Tasks -> rows on disk: load what a group of them needs, sample, screen, store shard after shard."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image

from generate.config import Generate
from generate.outputs import metadata
from generate.outputs.credentials import Signer
from generate.outputs.folder import Task
from generate.planning.jobs import Diffusion, Job
from generate.planning.plan import Row
from generate.planning.trained import Trained
from generate.sampling import pipeline
from generate.sampling.one_pass import OnePassSampler
from generate.sampling.sampler import Sampler
from generate.sampling.writer import Writer
from generate.screening.screens import Screens
from orchard import shards
from orchard.cli import signals
from orchard.cli.terminal import bar
from orchard.files import atomic, lock, storage

Record = dict[str, Any]
WORKERS = min(8, os.cpu_count() or 1)
"""Threads that screen and encode images while others are sampled."""
AHEAD = 4 * WORKERS
"""Images that wait for them at most."""


class Samplers:
    """The sampler of each job; what it needs is loaded when it is not what the last one needed."""

    def __init__(self, config: Generate, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.load = pipeline.Loader(config, dtype, device)
        self.source: Diffusion | Trained | None = None
        self.last: Sampler | OnePassSampler | None = None

    def of(self, job: Job) -> Sampler | OnePassSampler:
        """A sampler with what the job is sampled from in it."""
        if self.last is None or job.source != self.source:
            self.last = None  # and with it the pipeline, before the next one is loaded
            self.last, self.source = self._sampler(job.source), job.source
        return self.last

    def _sampler(self, source: Diffusion | Trained) -> Sampler | OnePassSampler:
        size = self.config.batch_size
        if isinstance(source, Trained):
            return OnePassSampler(source, batch_size=size, device=self.device, dtype=self.dtype)
        return Sampler(
            self.load(source.base, source.blend),
            source.settings,
            batch_size=size,
            attempts=self.config.attempts,
            depth=pipeline.depth(self.config),
        )


def sample_all(
    folder: Path,
    tasks: Sequence[Task],
    samplers: Samplers,
    screens: Screens,
    signer: Signer | None,
    state: PartialState,
) -> None:
    """Fill the shards of this process; those that share base and adapters follow one another."""
    total = sum(task.lacking for task in tasks)
    with bar("sampling", total, unit="images", show=state.is_main_process and total > 0) as advance:
        for _, group in itertools.groupby(tasks, key=lambda task: task.job.source):
            same = list(group)
            fill(folder, same, samplers.of(same[0].job), screens, signer, advance)


def fill(
    folder: Path,
    tasks: Sequence[Task],
    sampler: Sampler | OnePassSampler,
    screens: Screens,
    signer: Signer | None,
    advance: Callable[[int], None],
) -> None:
    """One stream over all shards: the next one is sampled while one is written."""
    size = sampler.batch_size
    blocks = (block for task in tasks for block in task.shard.batches(size))
    with (
        closing(sampler.sample(blocks)) as pairs,
        ThreadPoolExecutor(WORKERS) as workers,
        signals.heard(),
        Writer() as writer,
    ):
        for task in tasks:
            own = itertools.islice(pairs, sum(map(len, task.shard.spans(size))))
            wanted = set(task.shard.indices)
            fresh: list[Future[Record]] = []
            record = functools.partial(_record, task.job, screens, signer)
            try:
                for row, image in own:
                    if row.index in wanted:
                        fresh.append(workers.submit(record, row, image))
                        fresh[-AHEAD:][0].result()
                        advance(1)
                    writer.check()
            finally:  # what stops the run costs the images that are not sampled yet, and no others
                writer.put(_store, folder, task, fresh)
            writer.check(wait=True)


def _store(folder: Path, task: Task, sampled: Sequence[Future[Record]]) -> None:
    """Store the rows once they are screened; what stopped that for one of them is raised after the others."""
    fresh = [one.result() for one in sampled if one.exception() is None]
    if fresh:
        _put(folder, task, fresh)
    for one in sampled:
        one.result()


def _put(folder: Path, task: Task, fresh: Sequence[Record]) -> None:
    """Put the rows with those of their shard that are there; another process may have a part of it."""
    storage.refresh(folder)  # by a listing of before a shard that another process has written is not there
    with _turn(shards.path_of(folder, task.job.label, task.shard.number).parent):
        there = shards.load(folder, task.job.label, task.shard.number)
        rows = sorted([*there, *fresh], key=lambda record: record["index"])
        storage.remove(folder / shards.MANIFEST)  # the set is no longer what it says
        shards.store(folder, task.shard.number, rows, task.job.header)


def _turn(data: Path) -> AbstractContextManager[None]:
    """Nobody else writes to this folder; behind a URL no shard has parts."""
    if not storage.is_local(data):
        return nullcontext()
    with atomic.written(data):
        data.mkdir(parents=True, exist_ok=True)
    return lock.exclusive(data)


def _record(job: Job, screens: Screens, signer: Signer | None, row: Row, image: Image.Image) -> Record:
    """A sampled image as the row of a shard, with what the screens found."""
    arguments = job.header.arguments
    partly = row.canvas is not None and row.canvas.keeps
    data = metadata.png(
        image,
        prompt=row.prompt,
        system=arguments["base"],
        adapters=arguments["lora"],
        seed=row.seed,
        source=metadata.COMPOSITE_TYPE if partly else metadata.SOURCE_TYPE,
        signer=signer,
    )
    return {
        "image": {"bytes": data, "path": f"{job.label}-{row.index:06d}.png"},
        "label": job.header.classes.index(job.label),
        "prompt": row.prompt,
        "seed": row.seed,
        "index": row.index,
        "attempt": row.attempt,
        "guide": row.guide.sha256 if row.guide else "",
        "guidance": row.guidance,
        "strength": row.strength,
        "negative_prompt": row.negative or None,
        "contrast_prompt": row.other or None,
        **_repainted(row),
        **{key: arguments[key] for key in ("steps", "scheduler", "lora", "base")},
        **(_given_up(row) if row.fault else screens.judge(image, job.label, row.prompt)),
    }


def _given_up(row: Row) -> dict[str, Any]:
    """No screen looks at the black image that stands for it."""
    return {"reason": row.fault, "score": None}


def _repainted(row: Row) -> dict[str, Any]:
    """What the row says of its photo's repainting."""
    if row.canvas is None:
        return {}
    return {
        "mask": row.canvas.kind,
        "repainted": row.canvas.share,
        "strength": row.strength or row.canvas.passes[-1].strength,
        "box": [list(box) for box in row.canvas.boxes] or None,
    }
