"""What a run is going to do: everything that can be found out and refused before a weight is loaded."""

from collections import Counter
from dataclasses import replace

import torch
from accelerate import Accelerator

from finetune.config import TrainLora
from finetune.context import Job, Plan
from finetune.data import captioner, captions, masks, prior_data, training_data, training_set
from finetune.data.encoded_cache import keys_of
from finetune.data.training_data import prompt_of
from finetune.models import methods, quantized, words
from finetune.models.lora import EXPORTS
from finetune.outputs import logs, snippets
from finetune.planning import defaults, preflight, resume
from finetune.planning.accelerators import (
    arithmetic_of,
    processes_of,
    require_jobs,
    require_method,
    share_batches,
)
from finetune.step import objective
from finetune.training import optimizers, private
from orchard import prompt_template
from orchard.adapters import contexts, embeddings, layers, lycoris
from orchard.adapters import privacy as promises
from orchard.adapters.provenance import FULL, INVERSION
from orchard.bases import bases, prompt_embeds
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.cli import cli
from orchard.datasets import folders, sources
from orchard.files import atomic, checked_json
from orchard.images.images import ImageSet

TAKEN = (*EXPORTS, embeddings.FOLDER, "checkpoints", "logs", "previews", "prior")
"""Folders of the output that are no pipelines."""
HIGHEST_FULL_RATE = 1e-4
MOST_WARNINGS = 5
"""Prompts that are too long and listed one by one; the others are counted."""


def make(config: TrainLora, accelerator: Accelerator, dtype: torch.dtype) -> tuple[TrainLora, Plan]:
    """Read the set and the files of the base, and check all that can be checked without its weights.

    The options come back with what is usual for the base where they were left out.

    Raises:
        UserError: whatever would stop the run later on.
    """
    optimizers.optimizer_class(config.optimizer, config.learning_rate)
    logs.require_tracker(config.log_with)
    quantized.require_package(config.quantize)
    with accelerator.main_process_first():  # it downloads what the others find
        everything = sources.load(config.data, config.classes)
        base = bases.resolve(config.base, inpainting=True)
        model = captioner.fetch(config.captioner) if config.captioner else None
    config = defaults.resolve(config, base, accelerator.num_processes)
    share_batches(config, accelerator)
    objective.require_compatible(config, base)
    layers.require_loadable(base)
    require_family(config, base)
    skeleton = layers.skeleton(base.folder)
    chosen = methods.targets_of(config, skeleton, base.family)
    selected, sizes = training_set.select(everything, config)
    photos, said = captions.choose(config, selected, model)
    words.require_supported(config, base, config.classes or photos.classes)
    photos = words.in_prompts(config, photos, said.of)
    prior_photos, prior_sizes = prior_data.load(config, config.classes or photos.classes)
    arithmetic = arithmetic_of(accelerator, dtype)
    jobs = _promised(config, base, _jobs(config, photos, prior_photos))
    jobs = [replace(job, identity=resume.identity(config, base, job, arithmetic)) for job in jobs]
    require_jobs(accelerator, len(jobs))
    require_method(accelerator, config.method)
    for job in jobs:
        training_data.require_usable(config, job)
    jobs, broken = resume.find(config, jobs)
    precision, device = arithmetic["precision"], accelerator.device
    shapes = preflight.encoded_sizes(base, {**prior_sizes, **sizes}, bucketed=config.buckets)
    plan = Plan(
        base=base,
        photos=photos,
        targets=chosen,
        jobs=jobs,
        broken=broken,
        precision=precision,
        cache=preflight.cache_folder(config.cache),
        keys=keys_of(base, precision, device.type, shapes, config.fit, config.clip_skip),
        captions=said,
        checks=(),
    )
    return config, replace(plan, checks=preflight.check(config, plan, device))


def require_family(config: TrainLora, base: Base) -> None:
    """Raise `UserError` naming the first option that is nothing for the family of the base."""
    prompt_embeds.require_clip_skip(base, config.clip_skip)
    cli.check(
        not config.train_text_encoder or bool(FAMILIES[base.family].clip_encoders),
        f"--train_text_encoder: trains CLIP, which --base {base.name} does not have; leave it out",
    )
    named = f"--method {config.method}" if config.method in lycoris.METHODS else f"--export {config.export}"
    cli.check(
        base.family != "sana" or named == "--export none",
        f"{named}: kohya's names, which no tool reads of Sana, the family of --base {base.name}; leave it "
        "out: diffusers and peft load the file as it is",
    )


def _jobs(config: TrainLora, photos: ImageSet, prior_photos: ImageSet | None) -> list[Job]:
    classes, whole = config.classes or photos.classes, config.method == FULL
    atomic.require_distinct_files(photos.classes)
    if config.joint:
        names = tuple(sorted(classes))
        return [Job(name="joint", classes=names, photos=photos, prior_photos=prior_photos, whole=whole)]
    own, kept = photos.by_class(), prior_photos.by_class() if prior_photos else {}
    jobs = [
        Job(
            name=atomic.file_name(name),
            classes=(name,),
            photos=photos.keep(own[name]),
            prior_photos=prior_photos and prior_photos.keep(kept[name]),
            whole=whole,
        )
        for name in classes
    ]
    for job in jobs:
        cli.check(
            not whole or job.name not in TAKEN,
            f"--method full: class {job.name} would go into a folder of that name, where other things lie; "
            "rename it",
        )
    return jobs


def _promised(config: TrainLora, base: Base, jobs: list[Job]) -> list[Job]:
    """The jobs with what is promised to each of their photos."""
    private.require_package(config.dp_epsilon)
    for job in jobs if config.dp_epsilon else ():
        cli.check(
            prompt_embeds.chunks(base, training_data.prompts(config, job)) == 1,
            f"--dp_epsilon: captions of {job.name} are longer than CLIP reads at once, which changes how it "
            "reads those of the other photos; shorten them, or give --captions none",
        )
    return [replace(job, privacy=private.budget(config, len(job.photos), job.name)) for job in jobs]


def lines(config: TrainLora, plan: Plan, accelerator: Accelerator) -> list[str]:
    """The plan in words, one fact per line."""
    base = plan.base
    return [
        f"real set  {folders.describe(plan.photos)}",
        *(f"note      {note}" for note in plan.photos.notes),
        *(
            f"warning   {job.name} has one image: the adapter can only repeat it"
            for job in plan.jobs
            if len(job.photos) == 1
        ),
        f"base      {base.title} ({base.family}, {base.resolution} px, {base.prediction_type})",
        f"adapters  {', '.join(job.name for job in plan.jobs)}: {_learned(config)}, "
        f"{config.steps} steps of {_images_per_step(config.batch_size, config.accumulation)} images",
        *_rate_warning(config),
        *(
            f"privacy   {job.name}, experimental: {promises.described(job.privacy)}"
            for job in plan.jobs
            if job.privacy
        ),
        *(f"finished  {job.name}" for job in plan.jobs if job.finished),
        *(f"skipped   {line}" for line in plan.broken),
        *(
            f"resuming  {job.name} after step {job.checkpoint.step} ({job.checkpoint.folder})"
            for job in plan.jobs
            if job.checkpoint
        ),
        *defaults.lines(config, base),
        *_caption_lines(config, plan),
        *([f"masks     {masks.said(plan.photos)}"] if base.inpaints else []),
        *_prior_line(config, plan),
        *_long_lines(config, plan),
        *_truncation_lines(config, plan),
        *_export_line(config.method, config.export, base.family),
        f"output    {config.output}",
        *plan.checks,
        f"processes {processes_of(accelerator)}, precision {plan.precision}",
    ]


def _learned(config: TrainLora) -> str:
    """What learns, in words."""
    text = " and the text encoders" if config.train_text_encoder else ""
    words = f"words of {config.vectors} vector{'s' if config.vectors > 1 else ''}"
    if config.method == INVERSION:
        return words
    if config.method == FULL:
        return f"all weights of the denoiser{text}"
    said = f"{config.method} of rank {config.rank} on {', '.join(config.targets)}{text}"
    return f"{said}, and {words}" if config.vectors else said


def _rate_warning(config: TrainLora) -> list[str]:
    if config.method != FULL or config.learning_rate <= HIGHEST_FULL_RATE:
        return []
    return [
        f"warning   --learning_rate {config.learning_rate:g} is one for adapters and ruins whole models; "
        "DreamBooth takes 5e-6"
    ]


def _images_per_step(batch_size: int, accumulation: int) -> str:
    return str(batch_size) if accumulation == 1 else f"{accumulation} x {batch_size}"


def _caption_lines(config: TrainLora, plan: Plan) -> list[str]:
    """What photos are trained with, and where it comes from."""
    photos, template = plan.photos, config.template
    if config.captions == "none":
        return [f"captions  none: all photos take `{template}`"]
    if config.captions == "own":
        plain = {label: words.prompt(config, label) for label in photos.classes}
        own = sum(prompt_of(photo, template) != plain[photo.label] for photo in photos.photos)
        others = "" if own == len(photos) else f", the others take `{template}`"
        return [f"captions  {own} of {len(photos)} photos have their own{others}"]
    counts = [f"{count} {source}" for source, count in plan.captions.sources.items()]
    if plan.captions.missing:
        counts.append(f"{len(plan.captions.missing)} to be said by {config.captioner}")
    file = config.output / captions.NAME
    example = next((f", as in `{photo.text}`" for photo in photos.photos if photo.text), "")
    return [
        f"captions  contexts of {len(photos)} photos, {', '.join(counts)}{example}; edit them in {file}",
        *(
            f"note      {job.name}: its file keeps the {contexts.MOST} most common contexts of a class"
            for job in plan.jobs
            if any(contexts.too_many(said) for said in plan.captions.by_class(job.photos).values())
        ),
    ]


def _long_lines(config: TrainLora, plan: Plan) -> list[str]:
    """How many prompts CLIP reads in several chunks."""
    found = {prompt for job in plan.jobs for prompt in training_data.prompts(config, job)}
    counts = words.counts(config, plan.photos.classes)
    longer = sum(count > 1 for count in prompt_embeds.chunks_of(plan.base, found, counts))
    if not longer:
        return []
    return [f"prompts   {longer} of {len(found)} are longer than CLIP reads at once, and read in chunks"]


def _truncation_lines(config: TrainLora, plan: Plan) -> list[str]:
    """Warnings about prompts that the text encoders truncate."""
    photos = plan.photos.photos
    sources_of = {prompt_of(photo, config.template): f"the caption of {photo.path}" for photo in photos}
    filled = [prompt_template.fill(config.template, photo.label) for photo in photos if not photo.text]
    if config.prior_weight:
        filled += [
            prompt_template.fill(config.prior_prompt, name) for job in plan.jobs for name in job.classes
        ]
    sources_of |= {prompt: f"prompt {prompt!r}" for prompt in filled}
    cut = prompt_embeds.cut(plan.base, sources_of, words.counts(config, plan.photos.classes))
    listed = [
        f"warning   {sources_of[prompt]} is too long, the text encoder will not see "
        f"{checked_json.shown(lost)}"
        for prompt, lost in list(cut.items())[:MOST_WARNINGS]
    ]
    more = len(cut) - len(listed)
    return [*listed, f"warning   and {more} more are too long"] if more else listed


def _export_line(method: str, export: str, family: str) -> list[str]:
    """Which tools read kohya's names, where not all do."""
    uses_kohya_names = export != "none" or method in lycoris.METHODS
    if not uses_kohya_names or family != "sd3":
        return []
    tools = " and ".join(snippets.interfaces("lora" if export == "merged" else method, family))
    return [f"export    kohya's names of SD 3 are for {tools}; WebUI and kohya's scripts do not read them"]


def _prior_line(config: TrainLora, plan: Plan) -> list[str]:
    if not config.prior_weight:
        return []
    images = f"{config.prior_count} images of `{config.prior_prompt}` per class"
    if config.prior_data:
        counts = Counter(
            photo.label for job in plan.jobs if job.prior_photos for photo in job.prior_photos.photos
        )
        there = ", ".join(f"{name} {count}" for name, count in counts.items())
        images = f"images of {config.prior_data} as `{config.prior_prompt}`: {there}"
    return [f"prior     {images}, weight {config.prior_weight:g}"]
