"""What one adapter learns from: its photos, the base's own pictures, and photos to validate on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune import prior, validation
from finetune.batches import Cache
from finetune.setup import Job, Setup
from orchard import prompts
from orchard.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything encoded, before any LoRA is in the base."""

    photos: Cache
    names: Sequence[str]
    """Files of the photos, in order."""
    prior: Cache | None
    held_out: Cache | None


def prepare(setup: Setup, job: Job, pixels: np.ndarray, precision: str) -> Material:
    """Encode the photos of ``job`` (``pixels`` (N, S, S, 3)) and what else the options ask for."""
    config, kept, held_out, pictures = setup.config, job.photos, None, None
    if config.validate_every:
        kept, apart = validation.hold_out(job.photos)
        held_out = _encode(setup, job.photos, apart, pixels)
    if config.prior_weight:
        context = (config, setup.base, setup.family)
        pictures = prior.cache(*context, job.classes, precision, setup.accelerator)
    return Material(
        photos=_encode(setup, job.photos, kept, pixels),
        names=[photo.path for photo in kept.photos],
        prior=pictures,
        held_out=held_out,
    )


def _encode(setup: Setup, everything: ImageSet, part: ImageSet, pixels: np.ndarray) -> Cache:
    """``part`` of the photos that ``pixels`` shows."""
    chosen = {id(photo) for photo in part.photos}
    rows = [row for row, photo in enumerate(everything.photos) if id(photo) in chosen]
    texts = [photo.text or prompts.fill(setup.config.prompt, photo.label) for photo in part.photos]
    return setup.family.encode(pixels[rows], texts)
