"""`finetune/train_lora.py`: check everything that can be checked, load the base, train, save."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console

from finetune import lora
from finetune.config import TrainLora
from finetune.families import Family, family_of
from finetune.training import train_steps
from orchard import adapter, bases, cli, folders, images, prompts, run, sources, splits
from orchard.errors import UserError
from orchard.images import TRAIN, ImageSet
from orchard.terminal import bar, say

MIXED = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One adapter to train: its name, its classes and their photos."""

    name: str
    classes: tuple[str, ...]
    photos: ImageSet


def train(config: TrainLora) -> None:
    """Run the command."""
    config.require_valid()
    accelerator, dtype = _accelerator(config)
    with accelerator.main_process_first():  # it downloads what the others find
        real = _real_set(config)
        base = bases.resolve(config.base)
    jobs = _jobs(config, real)
    console = Console(quiet=not accelerator.is_main_process)
    _describe(console, config, base, real, jobs, accelerator.num_processes, run.dtype_name(dtype))
    if config.dry_run:
        return
    pixels = {job.name: _pixels(job.photos, base.resolution) for job in jobs}
    run.writable(config.output)
    run.quiet_libraries()
    pipe = bases.load(base, dtype, accelerator.device)
    family = family_of(pipe, base)
    written = [_train_one(config, base, family, job, pixels[job.name], accelerator) for job in jobs]
    say(console, f"wrote {', '.join(str(path) for path in written)}")
    say(console, f"next: {shlex.join(['python', '-m', 'generate', '--lora', *map(_named, written)])}")
    accelerator.end_training()


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
        least = max(1, config.shots)
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
    accelerator = Accelerator(mixed_precision=MIXED[dtype], cpu=device.type == "cpu")
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
        f"adapters  {', '.join(job.name for job in jobs)}: rank {config.rank}, "
        f"{config.steps} steps of {config.batch_size} images",
        f"output    {config.output}",
        f"processes {processes}, precision {precision}",
    ):
        say(console, line)


def _named(path: Path) -> str:
    """How generate finds the file: by bare name in the usual folder, else by path."""
    return path.name if path.parent == Path("adapters") else str(path)


def _train_one(
    config: TrainLora,
    base: bases.Base,
    family: Family,
    job: Job,
    pixels: np.ndarray,
    accelerator: Accelerator,
) -> Path:
    photos = job.photos.photos
    texts = [photo.text or prompts.fill(config.prompt, photo.label) for photo in photos]
    cache = family.encode(pixels, texts)
    alpha = config.alpha or config.rank
    parameters = lora.inject(family.denoiser, config.rank, alpha, config.seed, family.targets)
    names = [photo.path for photo in photos]
    losses = []
    with bar(job.name, config.steps, unit="steps", show=accelerator.is_main_process) as advance:
        try:
            for step in train_steps(family, cache, parameters, names, config, accelerator):
                losses.append(step.loss)
                advance(1, f"loss {np.mean(losses[-50:]):.4f}")
        except FloatingPointError as error:
            raise UserError(f"{job.name}: {error}; use a lower --learning_rate or --precision fp32") from None
    path = config.output / f"{job.name}.safetensors"
    if accelerator.is_main_process:
        adapter.save(path, family.denoiser, _provenance(config, base, job, losses, alpha))
    lora.remove(family.denoiser)
    accelerator.wait_for_everyone()
    return path


def _provenance(config: TrainLora, base: bases.Base, job: Job, losses: list[float], alpha: float) -> Any:
    tenth = max(1, len(losses) // 10)
    return adapter.Provenance(
        base=base.name,
        base_digest=base.digest,
        family=base.family,
        resolution=base.resolution,
        classes=list(job.classes),
        all_classes=list(job.photos.classes),
        prompt=config.prompt,
        rank=config.rank,
        alpha=alpha,
        steps=config.steps,
        seed=config.seed,
        losses={"first": float(np.mean(losses[:tenth])), "last": float(np.mean(losses[-tenth:]))},
        trained_on=sorted(job.photos.hashes()),
        data=job.photos.name,
        versions=run.versions(),
        commit=run.git_commit(),
    )
