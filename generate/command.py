"""`python -m generate`: plan, refuse what cannot work, sample the missing rows, then the manifest."""

from collections.abc import Sequence

from rich.console import Console

from generate import description, finish, pipeline
from generate.config import Generate
from generate.sampling import Task, sample_all
from generate.sources import Job, jobs
from orchard import hub, run, shards


def generate(config: Generate) -> None:
    """Run the command."""
    config.require_valid()
    state = run.processes()
    dtype = run.torch_dtype(config.precision, state.device)
    pipeline.require_device(config, state.device)
    if config.push_to_hub and state.is_main_process and not config.dry_run:
        hub.check(config.push_to_hub, "dataset")
    planned = jobs(config, run.dtype_name(dtype))
    tasks = _missing(config, planned)
    console = Console(quiet=not state.is_main_process)
    description.describe(console, config, planned, tasks)
    description.processes(console, state.num_processes, run.dtype_name(dtype))
    if config.dry_run:
        description.rows(console, planned)
        return
    run.writable(config.output)
    state.wait_for_everyone()  # until each has seen the folder as it was
    sample_all(config, tasks[state.process_index :: state.num_processes], state, dtype)
    state.wait_for_everyone()
    if state.is_main_process:
        finish.finish(console, config, changed=bool(tasks))
    state.destroy_process_group()


def _missing(config: Generate, planned: Sequence[Job]) -> list[Task]:
    """The shards that lack rows, after the folder was found to fit the plan."""
    found = shards.existing(config.output)
    labels = {job.label for job in planned}
    shards.require_complete([s for s in found if s.origin.label not in labels], config.output)
    for job in planned:
        shards.require_same(found, job.origin, config.output)
    there = {(s.origin.label, s.number): s.rows for s in found}
    tasks = [
        Task(job=job, shard=shard, kept=there.get((job.label, shard.number), 0))
        for job in planned
        for shard in job.plan.shards(config.shard_size)
    ]
    return [task for task in tasks if task.lacking > 0]
