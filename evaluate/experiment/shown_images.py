"""The images that the page shows and measures: synthetic sets beside the real images they go with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluate.config import Evaluate
from evaluate.experiment.arms import Run
from evaluate.experiment.image_sets import Sets
from evaluate.experiment.own_generator import OwnGenerator
from evaluate.experiment.validation_search import chosen
from evaluate.generators import GIVEN
from evaluate.records.records import Key, Record
from orchard import shards
from orchard.files import storage
from orchard.images.images import ImageSet


@dataclass(frozen=True, kw_only=True)
class ShownImages:
    """What one generator made, and the real images that it is measured by."""

    real: ImageSet
    """Real training images: of the set, or of the arm whose own generator made the synthetic ones."""
    test: ImageSet
    """Real images that neither that generator nor the arm's classifiers have seen."""
    synthetic: ImageSet
    """Empty where no arm has synthetic images."""
    folder: Path | None
    """Where the synthetic set lies; `None` without one."""
    kind: str = "ratio"
    shots: int | None = None
    generator: str = GIVEN
    """These three as in the records of the arms that they are of."""
    arm: str = ""
    """One of these arms, where they make images of their own."""
    seconds_per_image: float | None = None
    """Tuning and sampling over all images made; `None` where it is not known."""
    seconds_to_train: float | None = None
    """Tuning alone; `None` also where nothing was tuned."""


def select(
    config: Evaluate, sets: Sets, runs: Sequence[Run], finished: Mapping[Key, Record]
) -> list[ShownImages]:
    """One set a generator and number of shots; the first stands for all arms where one has to.

    That is the given set, or of the arms that make their own images the first with the most real ones. Of an
    arm that chooses it is what was chosen, and nothing where that is no synthetic images.
    """
    found: dict[object, ShownImages] = {}
    if len(sets.synthetic):
        given = storage.location(config.synthetic)
        found[GIVEN] = ShownImages(real=sets.train, test=sets.test, synthetic=sets.synthetic, folder=given)
    made = [used(run, finished[run.key]) for run in runs if run.key in finished]
    own = [(run, run.source) for run in made if isinstance(run.source, OwnGenerator)]
    for run, source in sorted(own, key=lambda pair: -len(pair[1].real)):
        origin = run.arm.shots, run.arm.generator
        folder = source.made()
        if origin not in found and folder is not None:
            found[origin] = _own(sets, run, source, folder)
    nothing = ShownImages(real=sets.train, test=sets.test, synthetic=sets.train.keep(()), folder=None)
    return list(found.values()) or [nothing]


def used(run: Run, record: Record) -> Run:
    """The run with the source of its images, as its record says where it was to be chosen."""
    choice = chosen(record, run)
    if choice is None:
        return run
    return choice.made(run) if choice.candidate.share else replace(run, source=None)


def _own(sets: Sets, run: Run, source: OwnGenerator, folder: Path) -> ShownImages:
    """``folder`` has the images of ``source``, made for the arm of ``run`` among others."""
    spent = source.seconds() if source.is_there else None
    images = sum(shards.read_manifest(folder)["rows"].values())
    return ShownImages(
        real=source.real,
        test=sets.test.keep(run.test),
        synthetic=source.read(folder),
        folder=folder,
        kind=run.arm.name,
        shots=run.arm.shots,
        generator=run.arm.generator,
        arm=run.title,
        seconds_per_image=None if spent is None else spent / images,
        seconds_to_train=source.seconds_to_train() if source.is_there else None,
    )
