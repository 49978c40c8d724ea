"""`finetune/train_lora.py`: check everything that can be checked, load the base, train, save."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from finetune import card, logs, objective, optimizers, preflight, resume, targets, training_set
from finetune.checkpoints import Checkpoint
from finetune.config import TrainLora
from finetune.devices import accelerator_for, processes_of, require_jobs
from finetune.encoding import Encoder
from finetune.families import family_of
from finetune.interrupt import Interrupt
from finetune.job import StopError, identity
from finetune.job import train as train_job
from finetune.material import prepare
from finetune.preflight import Preflight
from finetune.resume import Rest
from finetune.setup import Job, Setup
from finetune.usage import generate_command
from finetune.watch import sheet_paths
from orchard import adapter, bases, folders, hub, layers, run, sources
from orchard.images import ImageSet
from orchard.terminal import bar, say


def train(config: TrainLora) -> None:
    """Run the command."""
    config.require_valid()
    optimizers.find(config.optimizer, config.learning_rate)
    logs.require_tracker(config.log_with)
    accelerator, dtype = accelerator_for(config)
    with accelerator.main_process_first():  # it downloads what the others find
        everything = sources.load(config.data, config.classes)
        base = bases.resolve(config.base)
    objective.require_fit(config, base)
    skeleton = layers.skeleton(base.folder)
    chosen = targets.resolve(config.targets, skeleton, base.family, trains_text=config.train_text_encoder)
    real, sizes = training_set.of(everything, config)
    if config.push_to_hub and accelerator.is_main_process and not config.dry_run:
        hub.check(config.push_to_hub, "model")
    jobs = _jobs(config, real)
    require_jobs(accelerator, len(jobs))
    precision = run.dtype_name(dtype)
    same = {job.name: identity(config, base, job, precision) for job in jobs}
    rest = resume.find(config, jobs, same)
    jobs_left = [job for job in jobs if job.name not in rest.done]
    checked = preflight.check(config, base, chosen, jobs_left, sizes, precision, accelerator.device)
    console = Console(quiet=not accelerator.is_main_process)
    _describe(console, config, base, real, jobs, rest, checked, processes_of(accelerator))
    if config.dry_run:
        return
    checked.make_folders()
    run.quiet_libraries()
    pipe = bases.load(base, dtype, accelerator.device)
    family = family_of(pipe, base, trains_text=config.train_text_encoder)
    encoder = Encoder(family=family, keys=checked.keys, folder=checked.cache, accelerator=accelerator)
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
        for job in jobs_left:
            written.append(_train_one(setup, job, encoder, same[job.name], rest.starts.get(job.name)))
    say(console, f"wrote {', '.join(map(str, written)) or 'nothing: all adapters are finished'}")
    files = [job.path(config.output) for job in jobs]
    if accelerator.is_main_process:
        _share(console, config, files)
    say(console, f"card: {config.output / card.NAME} shows the use in diffusers, WebUI and ComfyUI")
    say(console, f"next: {generate_command(files)}")
    accelerator.end_training()


def _share(console: Console, config: TrainLora, files: Sequence[Path]) -> None:
    """Write the card, and upload it with the adapters where that was asked for."""
    origins = [(path, adapter.read(path).provenance) for path in files]
    readme = card.write(config.output, [(path, origin) for path, origin in origins if origin])
    if config.push_to_hub:
        repo = hub.check(config.push_to_hub, "model")
        pictures = [path for file in files for path in sheet_paths(file) if path.is_file()]
        contents = {path.name: path for path in (*files, readme, *pictures)}
        address = hub.upload(repo, "model", contents, private=config.private, message="Add LoRA adapters")
        say(console, f"uploaded to {address}")


def _train_one(
    setup: Setup, job: Job, encoder: Encoder, same: dict[str, Any], start: Checkpoint | None
) -> Path:
    main = setup.accelerator.is_main_process
    material = prepare(setup, job, encoder)
    left = setup.config.steps - (start.step if start else 0)
    with bar(job.name, left, unit="steps", show=main) as advance:
        try:
            return train_job(setup, job, material, same, start, advance)
        except StopError as stopped:
            if main:
                print(f"stopped; saved {stopped.checkpoint}; go on with --resume latest", file=sys.stderr)
            raise SystemExit(stopped.code) from None


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


def _describe(
    console: Console,
    config: TrainLora,
    base: bases.Base,
    real: ImageSet,
    jobs: Sequence[Job],
    rest: Rest,
    checked: Preflight,
    processes: str,
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
        f"{config.steps} steps of {_images_a_step(config)} images",
        *(f"finished  {name}" for name in sorted(rest.done)),
        *(f"passed by {line}" for line in rest.broken),
        *(
            f"resuming  {name} after step {start.step} ({start.folder})"
            for name, start in rest.starts.items()
        ),
        *_prior_line(config),
        f"output    {config.output}",
        *checked.lines,
        f"processes {processes}, precision {checked.precision}",
    ):
        say(console, line)


def _images_a_step(config: TrainLora) -> str:
    if config.accumulation == 1:
        return str(config.batch_size)
    return f"{config.accumulation} x {config.batch_size}"


def _prior_line(config: TrainLora) -> list[str]:
    if not config.prior_weight:
        return []
    pictures = f"{config.prior_count} of `{config.prior_prompt}` a class"
    return [f"prior     {pictures}, weight {config.prior_weight:g}"]
