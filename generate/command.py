"""`python -m generate`: plan, refuse what cannot work, sample the missing rows, then the manifest."""

from generate import description, pipeline, rounds, screens
from generate import folder as folders
from generate.config import Generate
from generate.finish import finish
from generate.sampling import Samplers
from generate.sources import jobs
from orchard import hub, run, shards, storage
from orchard.lock import writing
from orchard.terminal import Terminal


def generate(config: Generate) -> None:
    """Run the command."""
    config.require_valid()
    folder = storage.place(config.output)
    state = run.processes()
    dtype = run.torch_dtype(config.precision, state.device)
    pipeline.require_device(config, state.device)
    if config.push_to_hub and state.is_main_process and not config.dry_run:
        hub.check(config.push_to_hub, "dataset")
    sampled = jobs(config, run.dtype_name(dtype), pipeline.surroundings(config, state.device))
    screened = screens.plan(config, sampled)
    planned = [screened.marked(job) for job in sampled]
    folders.require_fit(folder, planned)
    console = Terminal(quiet=not state.is_main_process)
    description.describe(console, config, folder, planned, folders.gaps(folder, planned))
    description.processes(console, state.num_processes, run.dtype_name(dtype))
    if config.dry_run:
        description.rows(console, planned)
        return
    run.quiet_libraries()
    run.writable(folder)
    with writing(folder, state):
        if state.is_main_process:
            shards.require_unaltered(folder)
        samplers = Samplers(config, state.device, dtype)
        changed = rounds.fill(config, folder, planned, samplers, screened, state)
        if state.is_main_process:
            finish(console, config, folder, planned, changed=changed)
    state.destroy_process_group()
