"""The images that the page shows and measures: one synthetic set beside the real images it goes with."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from evaluate.config import Evaluate
from evaluate.experiment.arms import Run
from evaluate.experiment.image_sets import Sets
from evaluate.experiment.own_generator import OwnGenerator
from evaluate.records.records import Key
from orchard.files import storage
from orchard.images.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class ShownImages:
    """What stands for all arms of an experiment where images are to be seen."""

    real: ImageSet
    """Real training images: of the set, or of the arm whose own generator made the synthetic ones."""
    test: ImageSet
    """Real images that neither that generator nor the arm's classifiers have seen."""
    synthetic: ImageSet
    """Empty where no arm has synthetic images."""
    folder: Path | None
    """Where the synthetic set lies; `None` without one."""
    arm: str = ""
    """The arm that these are of, where arms have generators of their own."""


def select(config: Evaluate, sets: Sets, runs: Sequence[Run], finished: Set[Key]) -> ShownImages:
    """The given set, or among the arms with generators of their own the first with the most real images."""
    if not config.owns_generators:
        folder = storage.location(config.synthetic) if len(sets.synthetic) else None
        return ShownImages(real=sets.train, test=sets.test, synthetic=sets.synthetic, folder=folder)
    own = [(run, run.source) for run in runs if run.key in finished and isinstance(run.source, OwnGenerator)]
    for run, source in sorted(own, key=lambda pair: -len(pair[1].real)):
        folder = source.made()
        if folder is not None:
            return ShownImages(
                real=source.real,
                test=sets.test.keep(run.test),
                synthetic=source.read(folder),
                folder=folder,
                arm=run.title,
            )
    return ShownImages(real=sets.train, test=sets.test, synthetic=sets.train.keep(()), folder=None)
