"""`finetune/train_lora.py`: check everything that can be checked, load the base, train, save."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console

from finetune.config import TrainLora
from finetune.context import Plan, RunContext
from finetune.data import captions, training_data
from finetune.models import quantized, trained_text_encoders, words
from finetune.models.families import family_of
from finetune.models.lora import EXPORTS, exported
from finetune.outputs import logs, model_card
from finetune.outputs.monitor import sheet_paths
from finetune.outputs.snippets import generate_command
from finetune.planning import plan as planning
from finetune.planning import resume
from finetune.planning.accelerators import accelerator_for
from finetune.trainer import train_adapter
from finetune.training import saving
from finetune.training.interrupt import Interrupt
from orchard import devices, hub
from orchard.adapters import adapter, embeddings, merged
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.cli.terminal import Terminal, bar, say
from orchard.files import atomic
from orchard.files.lock import writing

OURS = re.compile(
    rf"{re.escape(model_card.NAME)}|(({'|'.join((*EXPORTS, embeddings.FOLDER))})/)?[^/]+\.safetensors"
    r"|[^/]+-(loss|samples)\.png"
)
"""What a folder of adapters may have on the Hub."""


def run(config: TrainLora) -> None:
    """Run `train` as a command."""
    saving.as_command(lambda: train(config))


def train(config: TrainLora) -> dict[str, Path]:
    """Train the adapters that are not there yet; class -> its adapter.

    Raises:
        UserError: whatever the user can mend.
        StopError: a signal came, in a command.
    """
    config.require_valid()
    accelerator, dtype = accelerator_for(config)
    try:
        return _train(config, accelerator, dtype)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        AcceleratorState._reset_state()  # else the next call in this process could not take another precision


def _train(config: TrainLora, accelerator: Accelerator, dtype: torch.dtype) -> dict[str, Path]:
    config, plan = planning.make(config, accelerator, dtype)
    shared = config.push_to_hub and accelerator.is_main_process and not config.dry_run
    repo = hub.check(config.push_to_hub, "model") if shared else ""
    console = Terminal(quiet=not accelerator.is_main_process)
    for line in planning.lines(config, plan, accelerator):
        say(console, line)
    if config.dry_run:
        return {}
    atomic.writable(config.output)
    if plan.cache is not None:
        atomic.writable(plan.cache, "--cache")
    devices.quiet_libraries()
    files = [job.path(config.output) for job in plan.jobs]
    with writing(config.output, accelerator):
        devices.require_same(
            accelerator, {f"{job.name}: {key}": v for job in plan.jobs for key, v in job.identity.items()}
        )
        plan = _captioned(config, plan, accelerator, dtype)
        # Another run may have ended between the plan and the lock.
        plan = replace(plan, jobs=resume.find(config, plan.jobs)[0])
        logs.start(config, accelerator)
        written = list(_adapters(config, plan, accelerator, dtype))
        say(console, f"wrote {', '.join(map(str, written)) or 'nothing: all adapters are finished'}")
        if accelerator.is_main_process:
            if config.export == "merged":
                for path in written:
                    file = exported(path, "merged")
                    say(console, f"merged    {file}: {merged.described(file)}")
            _share(console, config, plan.base, repo)
    say(console, f"card: {config.output / model_card.NAME} shows what uses them, and how")
    say(console, f"next: {generate_command(files, inpaints=plan.base.inpaints)}")
    return {name: job.path(config.output) for job in plan.jobs for name in job.classes}


def _captioned(config: TrainLora, plan: Plan, accelerator: Accelerator, dtype: torch.dtype) -> Plan:
    """The plan with all contexts, which the output keeps from now on."""
    said, photos = plan.captions, plan.photos.photos
    if config.captions != "context":
        return plan
    if accelerator.is_local_main_process:
        captions.save(
            config.output / captions.NAME, said, photos, accelerator.device, show=accelerator.is_main_process
        )
    accelerator.wait_for_everyone()
    return planning.make(config, accelerator, dtype)[1] if said.missing else plan


def _adapters(config: TrainLora, plan: Plan, accelerator: Accelerator, dtype: torch.dtype) -> Iterator[Path]:
    """Load the base and train the adapters that are left, one after another."""
    pipe = bases.load(plan.base, dtype, trained_text_encoders.CPU)
    run = RunContext(
        config=config,
        plan=plan,
        family=family_of(
            pipe,
            plan.base,
            trains_text=config.train_text_encoder or config.vectors > 0,
            clip_skip=config.clip_skip,
        ),
        accelerator=accelerator,
        interrupt=Interrupt(),
        scaler=accelerator.scaler.state_dict() if accelerator.scaler else {},
    )
    pipe.vae.to(accelerator.device)
    if config.quantize != "none":
        quantized.quantize(run.family.denoiser, config.quantize)
    show = accelerator.is_main_process
    # All of it first: text encoders and denoiser need not be on the device together.
    learned = [words.counts(config, job.classes) for job in plan.unfinished]
    runs = [replace(run, family=replace(run.family, words=of_job)) for of_job in learned]
    encoded = [training_data.encode(of_job, job) for of_job, job in zip(runs, plan.unfinished, strict=True)]
    run.family.denoiser.to(accelerator.device)
    for of_job, job, data in zip(runs, plan.unfinished, encoded, strict=True):
        with bar(job.name, config.steps - job.steps_done, unit="steps", show=show) as advance:
            yield train_adapter(of_job, job, data, advance)


def _share(console: Console, config: TrainLora, base: Base, repo: str) -> None:
    """Write the card of all adapters for the base in the folder, and bring the repository to that state."""
    adapters = model_card.adapters(config.output, base)
    readme = model_card.write(config.output, adapters, repo)
    if not repo:
        return
    with tempfile.TemporaryDirectory() as aside:
        files: dict[str, Path | bytes] = {readme.name: readme}
        for path, origin in adapters:
            vectors = [
                embeddings.path_of(path, label) for label, one in origin.embeddings.items() if one["sha256"]
            ]
            others = (*(exported(path, export) for export in EXPORTS), *sheet_paths(path))
            for file in (path, *vectors, *filter(Path.is_file, others)):
                files[file.relative_to(config.output).as_posix()] = _shareable(file, Path(aside))
        push = hub.Push(repo=repo, kind="model", folder=config.output, files=files, ours=OURS)
        for line in hub.upload(push, private=config.private, message="Add LoRA adapters"):
            say(console, line)


def _shareable(path: Path, aside: Path) -> Path:
    """The file to upload for the one at ``path``."""
    if path.suffix != ".safetensors":
        return path
    folder = aside / path.parent.name  # exports have the same name
    folder.mkdir(exist_ok=True)
    return adapter.shareable(path, folder)
