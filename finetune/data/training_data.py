"""What one adapter learns from: its photos, the base's own pictures, and photos to validate on."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.config import TrainLora
from finetune.context import Job, Setup
from finetune.data import prior
from finetune.data.encoding import Encoder
from finetune.training import validation
from finetune.training.batches import Cache
from orchard import prompt_template
from orchard.cli import cli
from orchard.images.images import ImageSet, Photo


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything encoded, before any LoRA is in the base."""

    photos: Cache
    names: Sequence[str]
    """Files of the photos, in order."""
    prior: Cache | None
    held_out: Cache | None


def require_fit(config: TrainLora, job: Job) -> None:
    """Raise `UserError` when a job's photos cannot be divided, or have the prompt of the base's pictures."""
    if config.validate_every:
        for part in validation.hold_out(job.photos):
            _require_all(part, job)
    if config.prior_weight:
        _require_other_prompts(config, job)


def _require_all(part: ImageSet, job: Job) -> None:
    """Raise `UserError` when a class has no photo in a part: copies of one file stay together."""
    counts = part.counts()
    for name in job.classes:
        contents = len({photo.sha256 for photo in job.photos.photos if photo.label == name})
        cli.check(
            counts[name] > 0,
            f"--validate_every: class {name} has {job.photos.counts()[name]} training images, {contents} of "
            "them different, too few to train on some and validate on others; add photos or leave it out",
        )


def _require_other_prompts(config: TrainLora, job: Job) -> None:
    """Raise `UserError` when a photo has the very prompt under which the base's pictures are to stay."""
    kept = {_as_read(prompt_template.fill(config.prior_prompt, label)) for label in job.classes}
    for photo in job.photos.photos:
        prompt = prompt_of(photo, config.prompt)
        cli.check(
            _as_read(prompt) not in kept,
            f"--prior_weight {config.prior_weight:g}: {photo.path} has the prompt {prompt!r}, under which "
            "the base is to stay as it is; give the photos a word of their own, as in --prompt "
            "'a photo of sks {label}', or another --prior_prompt",
        )


def _as_read(prompt: str) -> str:
    """As CLIP reads it: capitals and repeated spaces make no difference."""
    return " ".join(prompt.lower().split())


def prepare(setup: Setup, job: Job, encoder: Encoder) -> Material:
    """Encode the photos of ``job`` and what else the options ask for."""
    config, kept, held_out, pictures = setup.config, job.photos, None, None
    if config.validate_every:
        kept, apart = validation.hold_out(job.photos)
        held_out = _encode(encoder, apart, config.prompt)
    if config.prior_weight:
        pictures = prior.cache(config, setup.base, encoder, job.classes)
    return Material(
        photos=_encode(encoder, kept, config.prompt),
        names=[photo.path for photo in kept.photos],
        prior=pictures,
        held_out=held_out,
    )


def _encode(encoder: Encoder, images: ImageSet, template: str) -> Cache:
    return encoder.cache(images.photos, [prompt_of(photo, template) for photo in images.photos])


def prompt_of(photo: Photo, template: str) -> str:
    """The photo's own caption, else the template with its class."""
    return photo.text or prompt_template.fill(template, photo.label)
