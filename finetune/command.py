"""`finetune/train_lora.py`: check everything that can be checked, load the base, train, save."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from finetune import card, logs, resume
from finetune import plan as planning
from finetune.config import TrainLora
from finetune.devices import accelerator_for
from finetune.encoding import Encoder
from finetune.families import family_of
from finetune.interrupt import Interrupt
from finetune.job import StopError
from finetune.job import train as train_job
from finetune.material import prepare
from finetune.plan import Plan
from finetune.setup import Job, Setup
from finetune.usage import generate_command
from finetune.watch import sheet_paths
from orchard import adapter, bases, hub, run
from orchard.lock import writing
from orchard.terminal import Terminal, bar, say


def train(config: TrainLora) -> None:
    """Run the command."""
    config.require_valid()
    accelerator, dtype = accelerator_for(config)
    plan = planning.make(config, accelerator, dtype)
    shared = config.push_to_hub and accelerator.is_main_process and not config.dry_run
    repo = hub.check(config.push_to_hub, "model") if shared else ""
    console = Terminal(quiet=not accelerator.is_main_process)
    for line in planning.lines(config, plan, accelerator):
        say(console, line)
    if config.dry_run:
        return
    plan.checked.make_folders()
    run.quiet_libraries()
    files = [job.path(config.output) for job in plan.jobs]
    with writing(config.output, accelerator):
        # Another run may have ended between the plan and the lock.
        plan = replace(plan, rest=resume.find(config, plan.jobs, plan.identities))
        logs.start(config, accelerator)
        written = list(_adapters(config, plan, accelerator, dtype))
        say(console, f"wrote {', '.join(map(str, written)) or 'nothing: all adapters are finished'}")
        if accelerator.is_main_process:
            _share(console, config, files, repo)
    say(console, f"card: {config.output / card.NAME} shows the use in diffusers, WebUI and ComfyUI")
    say(console, f"next: {generate_command(files)}")
    accelerator.end_training()


def _adapters(config: TrainLora, plan: Plan, accelerator: Any, dtype: torch.dtype) -> Iterator[Path]:
    """Load the base and train the adapters that are left, one after another."""
    pipe = bases.load(plan.base, dtype, accelerator.device)
    family = family_of(pipe, plan.base, trains_text=config.train_text_encoder)
    keys, folder = plan.checked.keys, plan.checked.cache
    encoder = Encoder(family=family, keys=keys, folder=folder, accelerator=accelerator)
    with Interrupt() as interrupt:
        setup = Setup(
            config=config,
            base=plan.base,
            family=family,
            targets=plan.targets,
            accelerator=accelerator,
            interrupt=interrupt,
        )
        for job in plan.left:
            yield _train_one(setup, job, encoder, plan)


def _train_one(setup: Setup, job: Job, encoder: Encoder, plan: Plan) -> Path:
    main, start = setup.accelerator.is_main_process, plan.rest.starts.get(job.name)
    material = prepare(setup, job, encoder)
    left = setup.config.steps - (start.step if start else 0)
    with bar(job.name, left, unit="steps", show=main) as advance:
        try:
            return train_job(setup, job, material, plan.identities[job.name], start, advance)
        except StopError as stopped:
            if main:
                print(f"stopped; saved {stopped.checkpoint}; go on with --resume latest", file=sys.stderr)
            raise SystemExit(stopped.code) from None


def _share(console: Console, config: TrainLora, files: Sequence[Path], repo: str) -> None:
    """Write the card, and upload it with the adapters where that was asked for."""
    origins = [(path, adapter.read(path).provenance) for path in files]
    readme = card.write(config.output, [(path, origin) for path, origin in origins if origin], repo)
    if repo:
        pictures = [path for file in files for path in sheet_paths(file) if path.is_file()]
        contents = {path.name: path for path in (*files, readme, *pictures)}
        address = hub.upload(repo, "model", contents, private=config.private, message="Add LoRA adapters")
        say(console, f"uploaded to {address}")
