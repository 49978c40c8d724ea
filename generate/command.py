"""`python -m generate`: plan, refuse what cannot work, sample the missing rows, then the manifest."""

import io
import itertools
import shlex
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
from orchard import adapter, bases, hub, run, shards
from orchard.terminal import bar, say


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shard that lacks rows: ``kept`` rows are there, the rest is to be sampled."""

    job: Job
    shard: PlannedShard
    kept: int


def generate(config: Generate) -> None:
    """Run the command."""
    config.require_valid()
    state = run.processes()
    dtype = run.torch_dtype(config.precision, state.device)
    if config.push_to_hub and state.is_main_process and not config.dry_run:
        hub.check(config.push_to_hub, "dataset")
    planned = jobs(config, run.dtype_name(dtype))
    tasks = _missing(config, planned)
    console = Console(quiet=not state.is_main_process)
    _describe(console, config, planned, tasks, state.num_processes, run.dtype_name(dtype))
    if config.dry_run:
        return
    run.writable(config.output)
    state.wait_for_everyone()  # until each has seen the folder as it was
    _sample_all(config, tasks[state.process_index :: state.num_processes], state, dtype)
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(console, config, changed=bool(tasks))
    state.destroy_process_group()


def _missing(config: Generate, planned: Sequence[Job]) -> list[Task]:
    """The shards that lack rows, after the folder was found to fit the plan."""
    found = shards.existing(config.output)
    labels = {job.label for job in planned}
    shards.require_complete([s for s in found if s.origin.label not in labels], config.output)
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
    console: Console,
    config: Generate,
    planned: Sequence[Job],
    tasks: Sequence[Task],
    processes: int,
    precision: str,
) -> None:
    for job in planned:
        mine = [t for t in tasks if t.job is job]
        new = sum(len(t.shard.rows) - t.kept for t in mine)
        name = lora_name(job.adapter.path if job.adapter else None)
        say(
            console,
            f"class     {job.label}: {config.count} images, {new} to sample; base {job.base.name}, "
            f"LoRA {name}, prompt {job.prompt!r}, {job.origin.arguments['steps']} steps",
        )
    say(console, f"sampler   {config.scheduler}, guidance {config.guidance}")
    say(console, f"output    {config.output}, {config.shard_size} images a shard")
    say(console, f"processes {processes}, each takes whole shards; precision {precision}")


def _sample_all(config: Generate, tasks: Sequence[Task], state: PartialState, dtype: Any) -> None:
    run.quiet_libraries()
    total = sum(len(task.shard.rows) - task.kept for task in tasks)
    with bar("sampling", total, unit="images", show=state.is_main_process and total > 0) as advance:
        for _, group in itertools.groupby(tasks, key=lambda t: (t.job.base.name, t.job.adapter)):
            _sample_group(config, list(group), state.device, dtype, advance)


def _sample_group(
    config: Generate, tasks: Sequence[Task], device: Any, dtype: Any, advance: Callable[[int], None]
) -> None:
    """Tasks that share base and adapter: load once, sample shard after shard."""
    job = tasks[0].job
    pipe = bases.load(job.base, dtype, device)
    if job.adapter:
        adapter.attach(pipe, job.adapter)
    sampler = Sampler(
        pipe,
        scheduler=config.scheduler,
        steps=job.origin.arguments["steps"],
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
        rows_now = [*kept, *_records(task.job, pairs, advance)]
        (config.output / shards.MANIFEST).unlink(missing_ok=True)  # the set is no longer what it says
        shards.write(path, rows_now, task.job.origin)


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
        manifest = shards.read_manifest(config.output)
    else:
        manifest = shards.manifest_of(config.output)
        card.write(config.output, manifest)
        shards.write_manifest(config.output, manifest)
        counts = ", ".join(f"{label} {n}" for label, n in manifest["rows"].items())
        say(console, f"wrote {config.output}: {counts}")
    if config.push_to_hub:
        _share(console, config, manifest)
    say(console, f"next: {_next(config, manifest)}")


def _share(console: Console, config: Generate, manifest: dict[str, Any]) -> None:
    """Upload card, shards and manifest as one commit."""
    names = [card.NAME, *(entry["name"] for entry in manifest["files"]), shards.MANIFEST]
    repo = hub.check(config.push_to_hub, "dataset")
    files = {name: config.output / name for name in names}
    address = hub.upload(repo, "dataset", files, private=config.private, message="Add synthetic images")
    say(console, f"uploaded to {address}")


def _next(config: Generate, manifest: dict[str, Any]) -> str:
    """The command that goes on from here: the classes still missing, else the experiment."""
    default = Generate()
    output = [] if config.output == default.output else ["--output", str(config.output)]
    missing = [name for name in manifest["classes"] if name not in manifest["rows"]]
    if missing and config.lora:
        files = [f"{run.file_name(name)}.safetensors" for name in missing]
        return shlex.join(["python", "-m", "generate", "--lora", *files, *output])
    data = [] if config.data == default.data else ["--data", config.data]
    synthetic = ["--synthetic", str(config.output)] if output else []
    return shlex.join(["python", "-m", "evaluate", "--ratios", "all", *data, *synthetic])
