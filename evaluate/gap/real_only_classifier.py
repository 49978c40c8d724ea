"""The classifier of real images alone that the experiment keeps, so that its features can measure the gap."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from classify.trainer import Fitted
from evaluate.analysis.summary import PLAIN
from evaluate.config import Evaluate
from evaluate.experiment.arms import Run
from evaluate.experiment.image_sets import Sets
from orchard.classifiers import classifier
from orchard.classifiers.embeddings import Embed, of_classifier
from orchard.images.images import ImageSet

NAME = "our real-trained classifier"
FILES = "real_only_*.safetensors"
"""One a kind of arm, since several kinds may share a folder."""


def chosen(runs: Iterable[Run]) -> Run | None:
    """The first run of as many real images alone as any has; controls do not count."""
    plain = [run for run in runs if run.arm.name in PLAIN and run.arm.mixture.ratio == 1]
    return max(plain, key=lambda run: len(run.real), default=None)


def offer(config: Evaluate, sets: Sets, wanted: Run | None, run: Run, fitted: Fitted) -> None:
    """Keep the classifier in the experiment's folder if its run is the wanted one."""
    if wanted is None or run.key != wanted.key:
        return
    seen = {photo.sha256 for photo in (*run.real, *run.held_out)} | classifier.seen_by(config.pretrained)
    record = classifier.Record(
        model=config.model,
        classes=sets.train.classes,
        size=sets.sizes.size,
        through=sets.sizes.through,
        seed=run.seeds.classifier,
        steps=config.steps,
        data=config.data,
        trained_on=tuple(sorted(seen)),
        validation_accuracy=fitted.validation_accuracy,
    )
    classifier.save(config.output / FILES.replace("*", run.arm.name), fitted.model, record)


def features(folders: Sequence[Path], test: ImageSet, device: torch.device) -> dict[str, Embed]:
    """By `NAME`, those of the kept classifier that saw the most images and none of ``test``; else nothing."""
    kept = {path: classifier.read(path) for folder in folders for path in sorted(folder.glob(FILES))}
    fair = [path for path, record in kept.items() if not test.hashes().intersection(record.trained_on)]
    if not fair:
        return {}
    model, _ = classifier.load(max(fair, key=lambda path: len(kept[path].trained_on)), device)
    return {NAME: of_classifier(model, device)}
