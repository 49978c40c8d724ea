"""`finetune/train_gan.py` and `train_vae.py`: check everything that can be checked, train, save."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from finetune.context import Job
from finetune.data import training_set
from finetune.generators.batches import Photos, load
from finetune.generators.config import TrainGan, TrainGenerator, TrainVae
from finetune.generators.gan import GanLearner
from finetune.generators.learner import Learner
from finetune.generators.monitor import Monitor
from finetune.generators.vae import VaeLearner
from finetune.outputs import logs
from finetune.planning import resume
from finetune.planning.accelerators import accelerator_for, arithmetic_of, processes_of, share_batches
from finetune.training import checkpoints, saving
from finetune.training.interrupt import Interrupt
from finetune.training.loop import mean_loss
from orchard import devices
from orchard.cli.terminal import Terminal, bar, say
from orchard.datasets import folders, sources
from orchard.errors import UserError
from orchard.files import atomic
from orchard.files.lock import writing
from orchard.generators import files
from orchard.generators.files import Record
from orchard.images.splits import stable_hash


def run(config: TrainGenerator) -> None:
    """Run `train` as a command."""
    saving.as_command(lambda: train(config))


def train(config: TrainGenerator) -> Path | None:
    """Train the generator unless it is there; its file, None with ``dry_run``.

    Raises:
        UserError: whatever the user can mend.
        finetune.training.saving.StopError: a signal came, in a command.
    """
    config.require_valid()
    accelerator, dtype = accelerator_for(config)
    try:
        share_batches(config, accelerator)
        return _train(config, accelerator, dtype)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        AcceleratorState._reset_state()  # else the next call in this process could not take another precision


def _train(config: TrainGenerator, accelerator: Accelerator, dtype: torch.dtype) -> Path | None:
    job, broken = _plan(config, accelerator, dtype)
    console = Terminal(quiet=not accelerator.is_main_process)
    for line in _lines(config, job, broken, accelerator):
        say(console, line)
    if config.dry_run:
        return None
    path = job.path(config.output)
    atomic.writable(config.output)
    devices.quiet_libraries()
    with writing(config.output, accelerator):
        # Another run may have ended between the plan and the lock.
        (job,), _ = resume.find(config, [job])
        if not job.finished:
            logs.start(config, accelerator)
            photos = load(job.photos, job.classes, config)
            with bar(
                job.name, config.steps - job.steps_done, unit="steps", show=accelerator.is_main_process
            ) as advance:
                _fit(config, job, photos, accelerator, advance)
        say(console, f"wrote {'nothing: it is finished' if job.finished else path}")
    name = path.name if path.parent == files.FOLDER else str(path)
    say(console, f"next: {shlex.join(['python', '-m', 'generate', '--generator', name])}")
    return path


def _plan(config: TrainGenerator, accelerator: Accelerator, dtype: torch.dtype) -> tuple[Job, list[str]]:
    """The generator to train, and a line about each broken checkpoint that is skipped."""
    logs.require_tracker(config.log_with)
    with accelerator.main_process_first():  # it downloads what the others find
        everything = sources.load(config.data, config.classes)
    photos, _ = training_set.select(everything, config)
    job = Job(name=config.kind, classes=tuple(sorted(config.classes or photos.classes)), photos=photos)
    # Each process computes the statistics of its norms on its own part of a batch.
    made_with = {**arithmetic_of(accelerator, dtype), "processes": accelerator.num_processes}
    found, broken = resume.find(
        config, [replace(job, identity=resume.identity(config, None, job, made_with))]
    )
    return found[0], broken


def _lines(config: TrainGenerator, job: Job, broken: Sequence[str], accelerator: Accelerator) -> list[str]:
    """The plan in words, one fact per line."""
    return [
        f"real set  {folders.describe(job.photos)}",
        *(f"note      {note}" for note in job.photos.notes),
        f"generator {job.name} of {', '.join(job.classes)} at {config.size} px: {config.steps} steps of "
        f"{config.batch_size} images",
        *([f"finished  {job.name}"] if job.finished else []),
        *(f"skipped   {line}" for line in broken),
        *(
            [f"resuming  {job.name} after step {job.checkpoint.step} ({job.checkpoint.folder})"]
            if job.checkpoint
            else []
        ),
        f"output    {config.output}",
        f"processes {processes_of(accelerator)}, precision {job.identity['precision']}",
    ]


def _fit(
    config: TrainGenerator,
    job: Job,
    photos: Photos,
    accelerator: Accelerator,
    advance: Callable[[float, str], None],
) -> None:
    """Train from the start or from the job's checkpoint, and write the file."""
    losses = list(job.checkpoint.losses) if job.checkpoint else []
    learner = _begin(config, job, accelerator)
    monitor, interrupt = Monitor(config, job, learner, accelerator), Interrupt()
    with interrupt:
        for index in range(len(losses), config.steps):
            batch = photos.batch(index, config, accelerator)
            found = learner.step(batch)
            learner.update_average(index)
            try:
                values = {
                    name: mean_loss(loss, accelerator, index, batch.files) for name, loss in found.items()
                }
            except FloatingPointError as error:
                raise UserError(f"{job.name}: {error}; use a lower --learning_rate") from None
            losses.append(values["loss"])
            monitor.step(index + 1, values)
            advance(1, ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
            saving.save_due(config, accelerator, interrupt, learner, losses, job.name, job.identity)
        if accelerator.is_main_process:
            monitor.write_sheets()
            files.save(job.path(config.output), learner.average, _record(config, job, losses))
        accelerator.wait_for_everyone()
        if code := interrupt.exit_code(accelerator):
            raise saving.StopError(job.path(config.output), code)


def _begin(config: TrainGenerator, job: Job, accelerator: Accelerator) -> Learner:
    """Fresh networks, or those of the job's checkpoint."""
    folder = checkpoints.folder_of(config.output, job.name)
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        torch.manual_seed(stable_hash("weights", config.seed))
        learner: Learner
        if isinstance(config, TrainGan):
            learner = GanLearner(config, job.classes, accelerator)
        else:
            assert isinstance(config, TrainVae), config
            learner = VaeLearner(config, job.classes, accelerator)
        checkpoints.begin(folder, job.checkpoint, accelerator, learner)
    return learner


def _record(config: TrainGenerator, job: Job, losses: Sequence[float]) -> Record:
    tenth = max(1, len(losses) // 10)
    return Record(
        kind=config.kind,
        classes=job.classes,
        all_classes=job.photos.classes,
        size=config.size,
        width=config.width,
        latent=config.latent,
        steps=config.steps,
        seed=config.seed,
        losses={"first": float(np.mean(losses[:tenth])), "last": float(np.mean(losses[-tenth:]))},
        data=job.photos.name,
        trained_on=tuple(sorted(job.photos.hashes())),
        options=dict(job.identity),
    )
