"""Prior preservation with the user's own images of the classes."""

from collections.abc import Sequence

from finetune.config import TrainLora
from finetune.data import training_set
from finetune.data.encoding import Encoder
from finetune.data.training_set import Sizes
from finetune.step.batches import EncodedDataset
from orchard import prompt_template
from orchard.cli import cli
from orchard.datasets import sources
from orchard.images.images import TRAIN, ImageSet


def load(config: TrainLora, classes: Sequence[str]) -> tuple[ImageSet | None, Sizes]:
    """The images of ``--prior_data`` that are of ``classes`` and no test images, and their sizes.

    Raises:
        UserError: they cannot be read, or a class has none.
    """
    if not config.prior_data:
        return None, {}
    found = sources.load(config.prior_data, classes, option="--prior_data").of(TRAIN)
    images = found.keep(photo for photo in found.photos if photo.label in classes)
    for name in classes:
        cli.check(
            images.counts()[name] > 0,
            f"--prior_data {config.prior_data}: has no training image of {name}; add some, or leave it "
            "out and the base samples them",
        )
    return images, training_set.sizes_of(images)


def dataset(config: TrainLora, images: ImageSet, encoder: Encoder) -> EncodedDataset:
    """The images encoded, each with the prior prompt of its class."""
    prompts = [prompt_template.fill(config.prior_prompt, photo.label) for photo in images.photos]
    return encoder.dataset(images.photos, prompts)
