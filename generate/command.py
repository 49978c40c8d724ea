"""`python -m generate`: plan, refuse what cannot work, sample the missing rows, then the manifest."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from PIL import Image
from rich.console import Console

from generate import card
from generate.config import Generate
from generate.plan import PlannedShard, Row, plan
from generate.sampler import Sampler
from generate.sources import Job, jobs, lora_name
from orchard import adapter, bases, run, shards
from orchard.terminal import bar, say


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shard that lacks rows: ``kept`` rows are there, the rest is to be sampled."""

    job: Job
    shard: PlannedShard
    kept: int


def generate(config: Generate) -> None:
    """Run the command."""
    config.check()
    planned = jobs(config)
    tasks = _missing(config, planned)
    state = run.processes()
    console = Console(quiet=not state.is_main_process)
    _describe(console, config, planned, tasks, state.num_processes)
    if config.dry_run:
        return
    run.writable(config.output)
    if state.is_main_process and tasks:
        (config.output / shards.MANIFEST).unlink(missing_ok=True)
    state.wait_for_everyone()
    _sample_all(config, tasks[state.process_index :: state.num_processes], state)
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(console, config, changed=bool(tasks))
    state.destroy_process_group()


def _missing(config: Generate, planned: Sequence[Job]) -> list[Task]:
    """The shards that lack rows, after the folder was found to fit the plan."""
    found = shards.existing(config.output)
    for job in planned:
        shards.require_same(found, job.origin, config.output)
    there = {(s.origin.label, s.number): s.rows for s in found}
    return [
        Task(job=job, shard=shard, kept=kept)
        for job in planned
        for shard in plan(job.label, config.count, config.seed, config.shard_size)
        if (kept := there.get((job.label, shard.number), 0)) < len(shard.rows)
    ]


def _describe(
    console: Console, config: Generate, planned: Sequence[Job], tasks: Sequence[Task], processes: int
) -> None:
    for job in planned:
        mine = [t for t in tasks if t.job is job]
        new = sum(len(t.shard.rows) - t.kept for t in mine)
        name = lora_name(job.adapter.path if job.adapter else None)
        say(
            console,
            f"class     {job.label}: {config.count} images, {new} to sample; base {job.base.name}, "
            f"LoRA {name}, prompt {job.prompt!r}",
        )
    say(console, f"sampler   {config.scheduler}, {config.steps} steps, guidance {config.guidance}")
    say(console, f"output    {config.output}, {config.shard_size} images a shard")
    say(console, f"processes {processes}, precision {config.precision}")


def _sample_all(config: Generate, tasks: Sequence[Task], state: PartialState) -> None:
    run.quiet_libraries()
    total = sum(len(task.shard.rows) - task.kept for task in tasks)
    with bar("sampling", total, unit="images", show=state.is_main_process and total > 0) as advance:
        for _, group in itertools.groupby(tasks, key=lambda t: (t.job.base.name, t.job.adapter)):
            _sample_group(config, list(group), state.device, advance)


def _sample_group(
    config: Generate, tasks: Sequence[Task], device: Any, advance: Callable[[int], None]
) -> None:
    """Tasks that share base and adapter: load once, sample shard after shard."""
    job = tasks[0].job
    pipe = bases.load(job.base, run.torch_dtype(config.precision, device), device)
    if job.adapter:
        adapter.attach(pipe, job.adapter)
    sampler = Sampler(
        pipe,
        scheduler=config.scheduler,
        steps=config.steps,
        guidance=config.guidance,
        batch_size=config.batch_size,
    )
    for task in tasks:
        path = shards.path_of(config.output, task.shard.label, task.shard.number)
        kept = shards.rows_of(path) if task.kept else []
        # Sampling starts at a batch border, so that a row keeps its place in its batch.
        start = task.kept // config.batch_size * config.batch_size
        rows = task.shard.rows[start:]
        images = sampler.sample(rows, task.job.prompt)
        pairs = itertools.islice(zip(rows, images, strict=True), task.kept - start, None)
        shards.write(path, [*kept, *_records(task.job, pairs, advance)], task.job.origin)


def _records(
    job: Job, pairs: Iterable[tuple[Row, Image.Image]], advance: Callable[[int], None]
) -> Iterator[dict[str, Any]]:
    """Sampled images as rows of a shard."""
    arguments = job.origin.arguments
    label = job.origin.classes.index(job.label)
    shared = {key: arguments[key] for key in ("prompt", "steps", "guidance", "scheduler", "lora", "base")}
    for row, image in pairs:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        picture = {"bytes": buffer.getvalue(), "path": f"{job.label}-{row.index:06d}.png"}
        yield {"image": picture, "label": label, "seed": row.seed, "index": row.index, **shared}
        advance(1)


def _finish(console: Console, config: Generate, *, changed: bool) -> None:
    if not changed and (config.output / shards.MANIFEST).is_file():
        say(console, f"{config.output} has every row already; nothing written")
    else:
        manifest = shards.write_manifest(config.output)
        card.write(config.output, manifest)
        counts = ", ".join(f"{label} {n}" for label, n in manifest["rows"].items())
        say(console, f"wrote {config.output}: {counts}")
    say(console, "next: python -m evaluate --ratios all")
