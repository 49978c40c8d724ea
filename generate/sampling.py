"""The missing rows of the plan: loaded, sampled and stored, shard after shard."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from PIL import Image

from generate import pipeline
from generate.config import Generate
from generate.plan import PlannedShard, Row
from generate.sampler import Sampler, Tally
from generate.sources import Job
from orchard import run, shards
from orchard.terminal import bar


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shard that lacks rows: ``kept`` rows are there, the rest is to be sampled."""

    job: Job
    shard: PlannedShard
    kept: int

    @property
    def lacking(self) -> int:
        """Rows to be sampled."""
        return len(self.shard.indices) - self.kept


def sample_all(config: Generate, tasks: Sequence[Task], state: PartialState, dtype: Any) -> None:
    """Fill the shards of this process; those that share base and adapters follow one another."""
    run.quiet_libraries()
    load = pipeline.Loader(config, dtype, state.device)
    tally = Tally(asked=sum(task.lacking for task in tasks))
    show = state.is_main_process and tally.asked > 0
    with bar("sampling", tally.asked, unit="images", show=show) as advance:
        for (base, blend, settings), group in itertools.groupby(tasks, key=_needs):
            sampler = Sampler(
                load(base, blend),
                settings,
                batch_size=config.batch_size,
                attempts=config.attempts,
                depth=pipeline.depth(config),
                tally=tally,
            )
            _fill(config, sampler, list(group), advance)
            del sampler  # and with it the pipeline, before the next one is loaded


def _needs(task: Task) -> tuple[Any, ...]:
    return task.job.base, task.job.blend, task.job.settings


def _fill(config: Generate, sampler: Sampler, tasks: Sequence[Task], advance: Callable[[int], None]) -> None:
    """One stream over all shards, so that the next one is under way while one is written."""
    blocks = (block for task in tasks for block in task.shard.batches(config.batch_size, task.kept))
    with closing(sampler.sample(blocks)) as pairs:
        for task in tasks:
            path = shards.path_of(config.output, task.job.label, task.shard.number)
            kept = shards.rows_of(path) if task.kept else []
            known = task.kept % config.batch_size  # sampled once more for the sake of their batch
            fresh = itertools.islice(pairs, known, known + task.lacking)
            rows = [*kept, *_records(task.job, fresh, advance)]
            (config.output / shards.MANIFEST).unlink(missing_ok=True)  # the set is no longer what it says
            shards.write(path, rows, task.job.origin)
            sampler.tally.written += task.lacking


def _records(
    job: Job, pairs: Iterable[tuple[Row, Image.Image]], advance: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Sampled images as rows of a shard."""
    arguments = job.origin.arguments
    label = job.origin.classes.index(job.label)
    shared = {key: arguments[key] for key in ("steps", "guidance", "scheduler", "lora", "base")}
    for row, image in pairs:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        yield {
            "image": {"bytes": buffer.getvalue(), "path": f"{job.label}-{row.index:06d}.png"},
            "label": label,
            "prompt": row.prompt,
            "seed": row.seed,
            "index": row.index,
            "attempt": row.attempt,
            "guide": row.guide.sha256 if row.guide else "",
            **shared,
        }
        advance(1)
