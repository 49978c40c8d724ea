"""`python -m generate`: plan, refuse what cannot work, sample the missing rows, then the manifest."""

from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

from generate.config import Generate
from generate.masking import sheet as mask_sheet
from generate.outputs import credentials
from generate.outputs import folder as folders
from generate.outputs.finish import finish, require_shareable
from generate.planning import plan_text
from generate.planning.jobs import jobs
from generate.sampling import pipeline, rounds
from generate.sampling.tasks import Samplers
from generate.screening import rescreen, screens
from orchard import devices, shards
from orchard.cli.terminal import Terminal, say
from orchard.files import atomic, storage
from orchard.files.lock import writing


def generate(config: Generate) -> None:
    """Complete the set in the output folder.

    Raises:
        UserError: whatever the user can mend.
    """
    config.require_valid()
    folder = storage.location(config.output)
    state = devices.processes()
    console = Terminal(quiet=not state.is_main_process)
    signer = credentials.signer(config.sign)
    if state.is_main_process and not config.dry_run:
        require_shareable(config, folder)
    if config.rescreen:
        _rescreen(console, config, folder, state)
        return
    dtype = devices.torch_dtype(config.precision, state.device)
    pipeline.require_device(config, state.device)
    sampled = jobs(config, devices.dtype_name(dtype), pipeline.environment(config, state.device))
    resolution = min(job.source.resolution for job in sampled)
    screened = screens.plan(config, [job.label for job in sampled], resolution)
    headers = [credentials.marked(screened.marked(job.header), signer) for job in sampled]
    planned = [replace(job, header=header) for job, header in zip(sampled, headers, strict=True)]
    folders.require_fit(folder, planned)
    gaps = folders.gaps(folder, planned)
    plan_text.describe(console, config, folder, planned, gaps)
    plan_text.processes(console, state.num_processes, devices.dtype_name(dtype))
    if config.dry_run:
        plan_text.rows(console, planned)
        if config.repaint and state.is_main_process:
            for path in mask_sheet.write(folder, [job.plan for job in planned]):
                say(console, f"masks     {path}: what will be repainted, in red")
        return
    devices.quiet_libraries()
    atomic.writable(folder)
    with writing(folder, state):
        devices.require_same(
            state, {f"{job.label}: {key}": v for job in planned for key, v in job.header.arguments.items()}
        )
        with state.main_process_first():  # the others find the lists, and write none
            planned = [replace(job, header=job.header.beside(folder)) for job in planned]
        if state.is_main_process:
            shards.require_ledgers(folder)
            # A new manifest must not vouch for what was altered before, and nothing altered is published.
            vouches = gaps or config.push_to_hub or shards.pending(folder, [job.label for job in planned])
            shards.require_unaltered(folder, verify=config.verify or bool(vouches))
        samplers = Samplers(config, state.device, dtype)
        changed = rounds.fill(config, folder, planned, samplers, screened, state)
        if state.is_main_process:
            finish(console, config, folder, planned, changed=changed)


def _rescreen(console: Terminal, config: Generate, folder: Path, state: PartialState) -> None:
    """Judge the images in the folder anew, in one process."""
    screened, classes = rescreen.plan(config, folder)
    rescreen.describe(console, screened, classes)
    if config.dry_run:
        return
    atomic.writable(folder)
    with writing(folder, state):
        if state.is_main_process:
            shards.require_ledgers(folder)
            shards.require_unaltered(folder, verify=True)
            rescreen.rescreen(console, config, folder, screened, classes)
            finish(console, config, folder, (), changed=True)
