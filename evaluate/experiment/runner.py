"""Runs -> records: each image decoded once, every arm trained and scored the same way."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from classify.mixing import Mixing
from classify.sizes import Sizes
from classify.trainer import Fitted, Labelled, Step, Task, fit
from evaluate.experiment.arms import Run
from evaluate.experiment.mixtures import draw
from evaluate.experiment.recipe_search import Search
from evaluate.experiment.validation_search import Candidate, Choice, candidates, choose, fixed, parts
from evaluate.generators import SEARCH
from evaluate.metrics import negative_log_likelihoods, score
from evaluate.records.predictions import Predictions, rounded
from evaluate.records.records import Key, Record, Tested
from orchard import software
from orchard.classifiers.predict import probabilities
from orchard.errors import UserError
from orchard.images.arrays import Rows
from orchard.images.images import ImageSet, Photo

Report = Callable[[str, Step], None]


class Pixels:
    """Every image of the experiment decoded once, found by the hash of its file."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.found: dict[str, np.ndarray] = {}

    def add(self, photos: Sequence[Photo], advance: Callable[[int], None] = lambda count: None) -> None:
        """Decode what is not there yet; raises `UserError` for a file that is no whole image."""
        new = {photo.sha256: photo for photo in photos if photo.sha256 not in self.found}
        # As they lie in shards, of which a row group is read at a time.
        in_order = sorted(new.values(), key=lambda photo: photo.path)
        arrays = self.sizes.pixels(in_order, advance)
        self.found.update(zip((photo.sha256 for photo in in_order), arrays, strict=True))

    def of(self, photos: Sequence[Photo], classes: Sequence[str]) -> Labelled:
        """(N, S, S, 3) uint8 and (N,) int64 positions in ``classes``."""
        place = {name: i for i, name in enumerate(classes)}
        return self.rows(photos), np.array([place[photo.label] for photo in photos], dtype=np.int64)

    def rows(self, photos: Sequence[Photo]) -> Rows:
        """The images of the photos; arms that share some share their pixels."""
        self.add(photos)
        return Rows([self.found[photo.sha256] for photo in photos], self.sizes.size)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What all runs share."""

    classes: tuple[str, ...]
    external: Mapping[str, ImageSet]
    firsts: Mapping[Key, Run]
    """The first run of each draw of images, by `Run.choice_key`: an arm that chooses does so on it."""
    pixels: Pixels
    device: torch.device
    dtype: torch.dtype
    on_fitted: Callable[[Run, Fitted], None]
    """Is shown every classifier with its run."""
    search: Search
    """Chooses for arms that look for a recipe."""
    choices: dict[Key, Choice] = field(default_factory=dict)

    def record(self, run: Run, report: Report) -> Record:
        """Train and score one run.

        Raises:
            UserError: its own images could not be made, or the loss is not finite.
        """
        choice = self._choice(run, report)
        run = choice.made(run)
        synthetic = _synthetic(run, choice)
        held_out = validation_images(run, synthetic)
        started = time.monotonic()
        mixing = choice.candidate.mixing
        fitted = self._fit(run, run.real, held_out, synthetic, mixing, report)
        trained_on = ImageSet(name=run.title, classes=self.classes, photos=(*run.real, *synthetic))
        external = {name: self._scores(fitted, images.photos) for name, images in self.external.items()}
        self.on_fitted(run, fitted)
        return {
            **run.identity,
            "n_real": len(run.real),
            "n_synthetic": len(synthetic),
            "steps": run.options.steps,
            "classes": list(self.classes),
            **self._scores(fitted, run.test),
            "external": external,
            "validation_accuracy": fitted.validation_accuracy,
            "mixing_choice": choice.record,
            "train_files": trained_on.digest(),
            "commit": software.commit(),
            "seconds": round(time.monotonic() - started, 2),
            "seconds_network": round(fitted.seconds_network, 2),
        }

    def tries(self, run: Run) -> int:
        """Classifiers that are trained, at most, to choose for a run."""
        recipes = self.search.trials if run.arm.generator.startswith(SEARCH) else len(candidates(run))
        return recipes * len(parts(run))

    def _choice(self, run: Run, report: Report) -> Choice:
        """What the run's arm uses on its draw of images, chosen once where it is to be chosen."""
        if not run.chooses:
            return Choice(candidate=fixed(run.arm))
        key = run.choice_key
        if key not in self.choices:
            self.choices[key] = self._chosen(self.firsts[key], report)
        return self.choices[key]

    def _chosen(self, run: Run, report: Report) -> Choice:
        def losses_of(candidate: Candidate) -> Iterator[np.ndarray]:
            return self._losses(run, candidate, report)

        if run.arm.generator.startswith(SEARCH):
            return self.search.choose(run, losses_of)
        return choose(run, lambda candidate: np.concatenate([*losses_of(candidate)]))

    def _losses(self, run: Run, candidate: Candidate, report: Report) -> Iterator[np.ndarray]:
        """Those of the run's own real images, part by part, by classifiers that were trained without it.

        Its synthetic images, too, were made without it, if here: one that repaints photos would win by them.
        """
        for apart in parts(run):
            rest = [photo for photo in run.real if photo.sha256 not in apart]
            tested = [photo for photo in run.real if photo.sha256 in apart]
            choice = Choice(candidate=candidate)
            synthetic = _synthetic(choice.made(run.blind_to(apart)), choice)
            fitted = self._fit(run, rest, (), synthetic, candidate.mixing, report)
            pixels, labels = self.pixels.of(tested, self.classes)
            answers = probabilities(fitted.model, pixels, self.device, self.dtype)
            yield negative_log_likelihoods(labels, answers)

    def _fit(
        self,
        run: Run,
        real: Sequence[Photo],
        held_out: Sequence[Photo],
        synthetic: Sequence[Photo],
        mixing: Mixing,
        report: Report,
    ) -> Fitted:
        task = Task(
            train=self.pixels.of(real, self.classes),
            synthetic=self.pixels.of(synthetic, self.classes),
            mixing=mixing,
            validation=self.pixels.of(held_out, self.classes),
            classes=len(self.classes),
            names=self.classes,
            options=run.options,
            seed=run.seeds.classifier,
            device=self.device,
            dtype=self.dtype,
        )
        try:
            return fit(task, lambda step: report(run.title, step))
        except FloatingPointError as error:
            raise UserError(f"{error}; use a lower --learning_rate or --precision fp32") from None

    def _scores(self, fitted: Fitted, photos: Sequence[Photo]) -> Tested:
        """Every metric on ``photos``, and the prediction of each."""
        pixels, truth = self.pixels.of(photos, self.classes)
        found = rounded(probabilities(fitted.model, pixels, self.device, self.dtype))
        said = Predictions([photo.path for photo in photos], truth, found, self.classes)
        return {**score([photo.label for photo in photos], found, self.classes), "predictions": said}


def _synthetic(run: Run, choice: Choice) -> list[Photo]:
    """The run's synthetic images; its generator is tuned first where that has not happened yet."""
    if run.source is None:
        return []
    counts = choice.counts(run.arm.mixture.synthetic)
    return draw(run.source.images().photos, counts, "synthetic", run.seeds.subset)


def validation_images(run: Run, taken: Sequence[Photo]) -> list[Photo]:
    """Held-out real images, and with ``--validation mixed`` synthetic ones that are not ``taken``."""
    if run.source is None or not any(run.held_out_synthetic.values()):
        return list(run.held_out)
    used = {photo.sha256 for photo in taken}
    drawn = draw(run.source.images().photos, run.needed, "synthetic", run.seeds.subset)
    return [*run.held_out, *(photo for photo in drawn if photo.sha256 not in used)]
