"""What one adapter learns from: its photos, prior images of the base, and photos for validation."""

from finetune.config import TrainLora
from finetune.context import Job, RunContext
from finetune.data import prior, prior_data
from finetune.data.encoding import Encoder
from finetune.step.batches import EncodedDataset, TrainingData, grouped
from orchard import prompt_template
from orchard.bases import prompt_embeds
from orchard.bases.bases import Base
from orchard.cli import cli
from orchard.errors import UserError
from orchard.images import splits
from orchard.images.images import ImageSet, Photo


def require_usable(config: TrainLora, job: Job) -> None:
    """Raise `UserError` when a job's photos are too few to hold some out, or have the prompt of the prior."""
    if config.validate_every:
        for part in hold_out(job.photos):
            _require_every_class(part, job)
    if config.prior_weight:
        _require_other_prompts(config, job)


def _require_every_class(part: ImageSet, job: Job) -> None:
    """Raise `UserError` when a class has no photo in a part; copies of one file stay together."""
    counts, wanted = part.counts(), job.photos.counts()
    for name in job.classes:
        if not counts[name]:
            contents = len({photo.sha256 for photo in job.photos.photos if photo.label == name})
            raise UserError(
                f"--validate_every: class {name} has {wanted[name]} training images, {contents} of them "
                "different, too few to hold some out for validation; add photos or leave it out"
            )


def _require_other_prompts(config: TrainLora, job: Job) -> None:
    """Raise `UserError` when a photo has the prompt of prior preservation, which would pull both ways."""
    kept = {_normalised(prompt_template.fill(config.prior_prompt, label)) for label in job.classes}
    for photo in job.photos.photos:
        prompt = prompt_of(photo, config.template)
        cli.check(
            _normalised(prompt) not in kept,
            f"--prior_weight {config.prior_weight:g}: {photo.path} has the prompt {prompt!r}, which is also "
            "that of the prior images; give the photos a word of their own, as in --prompt "
            "'a photo of sks {label}', or another --prior_prompt",
        )


def _normalised(prompt: str) -> str:
    """As CLIP sees it: capitals and repeated spaces make no difference."""
    return " ".join(prompt.lower().split())


def encode(run: RunContext, job: Job) -> TrainingData:
    """Encode the photos of ``job`` and what else the options ask for; the base has no adapter yet."""
    plan, config = run.plan, run.config
    encoder = Encoder(
        family=run.family,
        keys=plan.keys,
        folder=plan.cache,
        accelerator=run.accelerator,
        chunks=prompt_embeds.chunks(plan.base, prompts(config, job), run.family.words),
    )

    def encoded(images: ImageSet, **options: bool) -> EncodedDataset:
        said = [prompt_of(photo, config.template) for photo in images.photos]
        return encoder.dataset(images.photos, said, **options)

    photos, held_out = hold_out(job.photos) if config.validate_every else (job.photos, None)
    return TrainingData(
        photos=encoded(photos, with_empty=config.caption_dropout > 0),
        files=[photo.path for photo in photos.photos],
        prior=_prior(config, plan.base, job, encoder) if config.prior_weight else None,
        held_out=encoded(held_out) if held_out else None,
        classes=grouped([photo.label for photo in photos.photos]) if config.balance else None,
    )


def _prior(config: TrainLora, base: Base, job: Job, encoder: Encoder) -> EncodedDataset:
    """What prior preservation keeps: the user's own images, or those that the base samples."""
    if job.prior_photos:
        return prior_data.dataset(config, job.prior_photos, encoder)
    return prior.dataset(config, base, encoder, job.classes)


def hold_out(photos: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Photos to train on, and a tenth of each class, at least one, for the validation loss."""
    chosen = splits.hold_out(photos, splits.VALIDATION_SHARE, "validation of the generator")
    return (
        photos.keep(p for p in photos.photos if p.sha256 not in chosen),
        photos.keep(p for p in photos.photos if p.sha256 in chosen),
    )


def prompts(config: TrainLora, job: Job) -> set[str]:
    """Every prompt that a job encodes."""
    found = {prompt_of(photo, config.template) for photo in job.photos.photos}
    if config.prior_weight:
        found |= {prompt_template.fill(config.prior_prompt, name) for name in job.classes}
    return found | ({""} if config.caption_dropout else set())


def prompt_of(photo: Photo, template: str) -> str:
    """The photo's own caption, else the template with its class."""
    return photo.text or prompt_template.fill(template, photo.label)
