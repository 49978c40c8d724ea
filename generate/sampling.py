"""Tasks -> rows on disk: load what a group of them needs, sample, screen, store shard after shard."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from PIL import Image

from generate import metadata
from generate.config import Generate
from generate.folder import Task
from generate.plan import Row
from generate.sampler import Sampler
from generate.screens import Screens
from generate.sources import Job
from orchard import adapter, bases, shards
from orchard.terminal import bar


class Samplers:
    """The sampler of each job; base and adapter are loaded when another one than the last is needed."""

    def __init__(self, config: Generate, device: Any, dtype: Any) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.key: tuple[Any, ...] = ()
        self.last: Sampler | None = None

    def of(self, job: Job) -> Sampler:
        """A sampler with the job's base and adapter in it."""
        key = (job.base.name, job.adapter)
        if self.last is None or key != self.key:
            pipe = bases.load(job.base, self.dtype, self.device)
            if job.adapter:
                adapter.attach(pipe, job.adapter)
            self.key, self.last = key, self._sampler(pipe, job)
        return self.last

    def _sampler(self, pipe: Any, job: Job) -> Sampler:
        return Sampler(
            pipe,
            scheduler=self.config.scheduler,
            steps=job.origin.arguments["steps"],
            guidance=self.config.guidance,
            batch_size=self.config.batch_size,
        )


def sample_all(
    folder: Path, tasks: Sequence[Task], samplers: Samplers, screens: Screens, state: PartialState
) -> None:
    """Fill the shards of these tasks, which are this process's own."""
    total = sum(len(task.missing) for task in tasks)
    with bar("sampling", total, unit="images", show=state.is_main_process and total > 0) as advance:
        for task in tasks:
            _fill(folder, task, samplers.of(task.job), screens, advance)


def _fill(
    folder: Path, task: Task, sampler: Sampler, screens: Screens, advance: Callable[[int], None]
) -> None:
    blocks = task.blocks(sampler.batch_size)
    pairs = itertools.chain.from_iterable(
        zip(block, sampler.sample(block, task.job.prompt), strict=True) for block in blocks
    )
    wanted = set(task.missing)
    fresh = list(_records(task.job, (pair for pair in pairs if pair[0].index in wanted), screens, advance))
    there = shards.load(folder, task.job.label, task.number)
    rows = sorted([*there, *fresh], key=lambda record: record["index"])
    (folder / shards.MANIFEST).unlink(missing_ok=True)  # the set is no longer what it says
    shards.store(folder, task.number, rows, task.job.origin)


def _records(
    job: Job, pairs: Iterable[tuple[Row, Image.Image]], screens: Screens, advance: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Sampled images as rows of a shard, with what the screens found."""
    arguments = job.origin.arguments
    label = job.origin.classes.index(job.label)
    shared = {key: arguments[key] for key in ("prompt", "steps", "guidance", "scheduler", "lora", "base")}
    for row, image in pairs:
        data = metadata.png(image, prompt=job.prompt, system=job.base.name, seed=row.seed)
        picture = {"bytes": data, "path": f"{job.label}-{row.index:06d}.png"}
        verdict = screens.judge(image, job.label)
        yield {"image": picture, "label": label, "seed": row.seed, "index": row.index, **shared, **verdict}
        advance(1)
