"""`python -m generate`: plan, refuse what cannot work, sample the missing rows, then the manifest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from generate import folder as folders
from generate import screens
from generate.config import Generate
from generate.finish import finish
from generate.folder import Task
from generate.sampling import Samplers, sample_all
from generate.screens import Screens
from generate.settling import settle
from generate.sources import Job, jobs, lora_name
from orchard import hub, run, shards, storage
from orchard.lock import writing
from orchard.terminal import say


def generate(config: Generate) -> None:
    """Run the command."""
    config.require_valid()
    folder = storage.place(config.output)
    state = run.processes()
    dtype = run.torch_dtype(config.precision, state.device)
    if config.push_to_hub and state.is_main_process and not config.dry_run:
        hub.check(config.push_to_hub, "dataset")
    sampled = jobs(config, run.dtype_name(dtype))
    screened = screens.plan(config, sampled)
    planned = [screened.marked(job) for job in sampled]
    folders.require_fit(folder, planned)
    console = Console(quiet=not state.is_main_process)
    tasks = folders.gaps(folder, planned)
    _describe(console, config, planned, tasks, state.num_processes, run.dtype_name(dtype))
    if config.dry_run:
        return
    run.quiet_libraries()
    run.writable(folder)
    with writing(folder, state):
        samplers = Samplers(config, state.device, dtype)
        changed = _rounds(config, folder, planned, samplers, screened, state)
        if state.is_main_process:
            finish(console, config, folder, changed=changed)
    state.destroy_process_group()


def _rounds(
    config: Generate,
    folder: Path,
    planned: Sequence[Job],
    samplers: Samplers,
    screened: screens.Plan,
    state: Any,
) -> bool:
    """Sample what is missing, settle, top up, until every class has its count; whether anything changed."""
    loaded: Screens | None = None
    changed = not (folder / shards.MANIFEST).is_file()
    while True:
        tasks = folders.gaps(folder, planned)
        if not tasks:
            if changed:
                _settle_once(folder, planned, state)
            tasks = folders.lacking(folder, planned, config.reject_limit)
        state.wait_for_everyone()  # until each has seen the folder as it was
        if not tasks:
            return changed
        changed = True
        loaded = loaded or Screens(config, screened)
        sample_all(folder, tasks[state.process_index :: state.num_processes], samplers, loaded, state)
        state.wait_for_everyone()


def _settle_once(folder: Path, planned: Sequence[Job], state: Any) -> None:
    """Settle in one process while the others wait."""
    state.wait_for_everyone()
    if state.is_main_process:
        settle(folder, planned)
    state.wait_for_everyone()


def _describe(
    console: Console,
    config: Generate,
    planned: Sequence[Job],
    tasks: Sequence[Task],
    processes: int,
    precision: str,
) -> None:
    for job in planned:
        new = sum(len(task.missing) for task in tasks if task.job is job)
        name = lora_name(job.adapter.path if job.adapter else None)
        say(
            console,
            f"class     {job.label}: {config.count} images, {new} to sample; base {job.base.name}, "
            f"LoRA {name}, prompt {job.prompt!r}, {job.origin.arguments['steps']} steps",
        )
    say(console, f"sampler   {config.scheduler}, guidance {config.guidance}")
    names = ", ".join(planned[0].origin.arguments["screens"]) or "none"
    say(console, f"screens   {names}; rejected images are kept apart and replaced")
    say(console, f"output    {config.output}, {config.shard_size} images a shard")
    say(console, f"processes {processes}, each takes whole shards; precision {precision}")
