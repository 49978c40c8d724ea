"""Arms x seeds -> records: the images decoded once, every arm trained and scored the same way."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from classify.predict import probabilities
from classify.sets import parts
from classify.sizes import Sizes
from classify.train import Fitted, Labelled, Step, fit
from evaluate.config import Evaluate
from evaluate.metrics import score
from evaluate.ratios import Mixture, draw
from evaluate.records import Key
from orchard.errors import UserError
from orchard.images import ImageSet, Photo

Report = Callable[[str, Step], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One classifier to train: a mixture and a seed."""

    mixture: Mixture
    seed: int
    design: str

    @property
    def key(self) -> Key:
        """As `records.key` of its record."""
        return self.design, self.mixture.ratio, None, self.seed

    @property
    def title(self) -> str:
        """How progress calls it."""
        return f"{self.mixture.ratio:.0%} real, seed {self.seed}"


class Pixels:
    """Every image of the experiment decoded once, found by its place in the sets."""

    def __init__(self, sets: Sequence[ImageSet], sizes: Sizes) -> None:
        photos = [photo for images in sets for photo in images.photos]
        self.array = sizes.pixels(photos)
        self.row = {id(photo): i for i, photo in enumerate(photos)}

    def of(self, photos: Sequence[Photo], classes: Sequence[str]) -> Labelled:
        """(N, S, S, 3) uint8 and (N,) int64 positions in ``classes``."""
        labels = np.array([classes.index(photo.label) for photo in photos], dtype=np.int64)
        return self.array[[self.row[id(photo)] for photo in photos]], labels


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What all runs share."""

    config: Evaluate
    train: ImageSet
    """Real training split; each seed's validation images, where asked for, are drawn from it."""
    test: ImageSet
    synthetic: ImageSet
    pixels: Pixels
    device: torch.device
    dtype: torch.dtype
    on_fitted: Callable[[nn.Module, dict[str, Any]], None]
    """Is shown every classifier with its record."""

    def records(self, runs: Sequence[Run], report: Report) -> Iterator[dict[str, Any]]:
        """Train and score run after run, lazily."""
        for run in runs:
            yield self._record(run, report)

    def _record(self, run: Run, report: Report) -> dict[str, Any]:
        started = time.monotonic()
        rest, held_out = parts(self.train, self.config.validation, run.seed)
        real = draw(rest.photos, run.mixture.real, "real", run.seed)
        synthetic = draw(self.synthetic.photos, run.mixture.synthetic, "synthetic", run.seed)
        fitted = self._fit(run, [*real, *synthetic], held_out.photos, report)
        test_pixels, _ = self.pixels.of(self.test.photos, self.train.classes)
        found = probabilities(fitted.model, test_pixels, self.device, self.dtype)
        record = {
            "design": run.design,
            "ratio": run.mixture.ratio,
            "shots": None,
            "seed": run.seed,
            "n_real": len(real),
            "n_synthetic": len(synthetic),
            "steps": self.config.steps,
            **score([photo.label for photo in self.test.photos], found, self.train.classes),
            "classes": list(self.train.classes),
            "validation_accuracy": fitted.validation_accuracy,
            "seconds": round(time.monotonic() - started, 2),
            "predictions": self._predictions(found),
        }
        self.on_fitted(fitted.model, record)
        return record

    def _fit(self, run: Run, train: Sequence[Photo], validation: Sequence[Photo], report: Report) -> Fitted:
        classes = self.train.classes
        try:
            return fit(
                train=self.pixels.of(train, classes),
                validation=self.pixels.of(validation, classes),
                classes=len(classes),
                options=self.config,
                seed=run.seed,
                device=self.device,
                dtype=self.dtype,
                on_step=lambda step: report(run.title, step),
            )
        except FloatingPointError as error:
            raise UserError(
                f"{run.title}: {error}; use a lower --learning_rate or --precision fp32"
            ) from None

    def _predictions(self, found: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "file": photo.path,
                "truth": photo.label,
                "probabilities": dict(zip(self.train.classes, row, strict=True)),
            }
            for photo, row in zip(self.test.photos, found.tolist(), strict=True)
        ]
