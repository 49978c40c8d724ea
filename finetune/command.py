"""`finetune/train_lora.py`: check everything that can be checked, load the base, train, save."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console

from finetune import card, logs, optimizers, resume, targets
from finetune.checkpoints import Checkpoint
from finetune.config import TrainLora
from finetune.families import family_of
from finetune.interrupt import Interrupt
from finetune.job import StopError, identity
from finetune.job import train as train_job
from finetune.resume import Rest
from finetune.setup import Job, Setup
from orchard import adapter, bases, cli, folders, hub, images, layers, run, sources, splits
from orchard.errors import UserError
from orchard.images import TRAIN, ImageSet
from orchard.terminal import bar, say

MIXED = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


def train(config: TrainLora) -> None:
    """Run the command."""
    config.require_valid()
    optimizers.find(config.optimizer, config.learning_rate)
    logs.require_tracker(config.log_with)
    accelerator, dtype = _accelerator(config)
    with accelerator.main_process_first():  # it downloads what the others find
        real = _real_set(config)
        base = bases.resolve(config.base)
    skeleton = layers.skeleton(base.folder)
    chosen = targets.resolve(config.targets, skeleton, base.family, trains_text=config.train_text_encoder)
    if config.push_to_hub and accelerator.is_main_process and not config.dry_run:
        hub.check(config.push_to_hub, "model")
    jobs = _jobs(config, real)
    precision = run.dtype_name(dtype)
    same = {job.name: identity(config, base, job, precision) for job in jobs}
    rest = resume.find(config, jobs, same)
    console = Console(quiet=not accelerator.is_main_process)
    _describe(console, config, base, real, jobs, rest, accelerator.num_processes, precision)
    if config.dry_run:
        return
    jobs = [job for job in jobs if job.name not in rest.done]
    pixels = {job.name: _pixels(job.photos, base.resolution) for job in jobs}
    run.writable(config.output)
    run.quiet_libraries()
    pipe = bases.load(base, dtype, accelerator.device)
    family = family_of(pipe, base, trains_text=config.train_text_encoder)
    logs.start(config, accelerator)
    written = []
    with Interrupt() as interrupt:
        setup = Setup(
            config=config,
            base=base,
            family=family,
            targets=chosen,
            accelerator=accelerator,
            interrupt=interrupt,
        )
        for job in jobs:
            written.append(
                _train_one(setup, job, pixels[job.name], same[job.name], rest.starts.get(job.name))
            )
    say(console, f"wrote {', '.join(map(str, written)) or 'nothing: all adapters are finished'}")
    files = [job.path(config.output) for job in _jobs(config, real)]
    if accelerator.is_main_process:
        _share(console, config, files)
    say(console, f"next: {shlex.join(['python', '-m', 'generate', '--lora', *map(_named, files)])}")
    accelerator.end_training()


def _share(console: Console, config: TrainLora, files: Sequence[Path]) -> None:
    """Write the card, and upload it with the adapters where that was asked for."""
    origins = [(path, adapter.read(path).provenance) for path in files]
    readme = card.write(config.output, [(path, origin) for path, origin in origins if origin])
    if config.push_to_hub:
        repo = hub.check(config.push_to_hub, "model")
        contents = {path.name: path for path in (*files, readme)}
        address = hub.upload(repo, "model", contents, private=config.private, message="Add LoRA adapters")
        say(console, f"uploaded to {address}")


def _train_one(
    setup: Setup, job: Job, pixels: np.ndarray, same: dict[str, Any], start: Checkpoint | None
) -> Path:
    main = setup.accelerator.is_main_process
    left = setup.config.steps - (start.step if start else 0)
    with bar(job.name, left, unit="steps", show=main) as advance:
        try:
            return train_job(setup, job, pixels, same, start, advance)
        except StopError as stopped:
            if main:
                print(f"stopped; saved {stopped.checkpoint}; go on with --resume latest", file=sys.stderr)
            raise SystemExit(stopped.code) from None


def _pixels(photos: ImageSet, resolution: int) -> np.ndarray:
    try:
        return images.pixels(photos.photos, resolution)
    except UserError as error:
        raise UserError(f"{error}, or pass --skip_bad") from None


def _real_set(config: TrainLora) -> ImageSet:
    """The training photos this run may see."""
    real = sources.load(config.data, config.classes)
    train_split = real.of(TRAIN)
    if config.skip_bad:
        train_split, problems = images.sound(train_split)
        note = f"skipped {len(problems)} files that are not whole images"
        train_split = replace(train_split, notes=(*train_split.notes, *problems, note))
    chosen = config.classes or real.classes
    kept = [photo for photo in train_split.photos if photo.label in chosen]
    train_split = train_split.keep(kept)
    for name in chosen:
        count = train_split.counts()[name]
        least = max(2 if config.validate_every else 1, config.shots)
        cli.check(
            count >= least,
            f"class {name} has {count} training images, needs at least {least}; "
            "add some or choose others with --classes",
        )
    if not config.shots:
        return train_split
    by_class = ([p for p in kept if p.label == name] for name in chosen)
    drawn = (splits.subset(photos, config.shots, "shots", config.seed) for photos in by_class)
    return train_split.keep(photo for photos in drawn for photo in photos)


def _jobs(config: TrainLora, real: ImageSet) -> list[Job]:
    classes = config.classes or real.classes
    run.require_distinct_files(real.classes)
    if config.joint:
        return [Job(name="joint", classes=tuple(sorted(classes)), photos=real)]
    return [
        Job(
            name=run.file_name(name),
            classes=(name,),
            photos=real.keep(p for p in real.photos if p.label == name),
        )
        for name in classes
    ]


def _accelerator(config: TrainLora) -> tuple[Accelerator, torch.dtype]:
    device = run.processes().device
    dtype = run.torch_dtype(config.precision, device)
    accelerator = Accelerator(
        mixed_precision=MIXED[dtype],
        cpu=device.type == "cpu",
        log_with=None if config.log_with == "none" else config.log_with,
        project_dir=config.output / logs.FOLDER,
    )
    cli.check(
        config.batch_size % accelerator.num_processes == 0,
        f"--batch_size {config.batch_size}: cannot be shared by {accelerator.num_processes} processes; "
        "give a multiple",
    )
    return accelerator, dtype


def _describe(
    console: Console,
    config: TrainLora,
    base: bases.Base,
    real: ImageSet,
    jobs: Sequence[Job],
    rest: Rest,
    processes: int,
    precision: str,
) -> None:
    for line in (
        f"real set  {folders.describe(real)}",
        *(f"note      {note}" for note in real.notes),
        *(
            f"warning   {job.name} has one image: the adapter can only repeat it"
            for job in jobs
            if len(job.photos) == 1
        ),
        f"base      {base.name} ({base.family}, {base.resolution} px, {base.prediction_type})",
        f"adapters  {', '.join(job.name for job in jobs)}: {config.method} of rank {config.rank} on "
        f"{', '.join(config.targets)}{' and the text encoders' if config.train_text_encoder else ''}, "
        f"{config.steps} steps of {config.batch_size} images",
        *(f"finished  {name}" for name in sorted(rest.done)),
        *(f"passed by {line}" for line in rest.broken),
        *(
            f"resuming  {name} after step {start.step} ({start.folder})"
            for name, start in rest.starts.items()
        ),
        *_prior_line(config),
        f"output    {config.output}",
        f"processes {processes}, precision {precision}",
    ):
        say(console, line)


def _prior_line(config: TrainLora) -> list[str]:
    if not config.prior_weight:
        return []
    pictures = f"{config.prior_count} of `{config.prior_prompt}` a class"
    return [f"prior     {pictures}, weight {config.prior_weight:g}"]


def _named(path: Path) -> str:
    """How generate finds the file: by bare name in the usual folder, else by path."""
    return path.name if path.parent == Path("adapters") else str(path)
