"""What one adapter learns from: its photos, the base's own pictures, and photos to validate on."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune import prior, validation
from finetune.batches import Cache
from finetune.encoding import Encoder
from finetune.setup import Job, Setup
from orchard import prompts
from orchard.images import ImageSet, Photo


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything encoded, before any LoRA is in the base."""

    photos: Cache
    names: Sequence[str]
    """Files of the photos, in order."""
    prior: Cache | None
    held_out: Cache | None


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
    return photo.text or prompts.fill(template, photo.label)
