"""The command line of classify, and the training options that evaluate shares with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchard.cli import cli
from orchard.files import size_limits

Validation = Literal["none", "real", "mixed"]
Augmentation = Literal["plain", "strong", "mixup", "cutmix"]
MixingName = Literal["union", "weight", "batch", "synthetic_first"]
SMALLEST = 32
"""Pixels: the smallest input that the networks take."""


@dataclass(frozen=True, kw_only=True)
class Training(cli.Options):
    """How a classifier is trained."""

    model: str = "cnn"
    """`cnn`, a torchvision classifier, e.g. resnet18, or `timm:NAME`; `features:NAME` freezes the network and
    fits only its last layer."""
    pretrained: str = ""
    """Weights to begin with: a .safetensors file, a folder of python -m classify, or `cache` (timm's)."""
    size: int = 0
    """Input side in pixels, 32 to 2048; 0 is 256, or the size of the training images (evaluate: of the
    synthetic ones, or of the base's) where that is smaller."""
    steps: int = 400
    """Optimiser steps, 1 or more."""
    batch_size: int = 48
    """Images per batch, 2 or more."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, above 0; warm-up over a tenth of the steps, then cosine."""
    validation: Validation = "none"
    """none: all training images train; real: a tenth of them is kept apart and scored; mixed:
    in evaluate, as many synthetic images join it in arms that have some (the student report's way)."""
    flip: bool = True
    """Mirror images at random; turn off where a mirror image is another class."""
    augmentation: Augmentation = "plain"
    """plain: moderate geometry and colour; strong: more of both; mixup, cutmix: also blend image pairs."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        cli.check(
            self.size == 0 or SMALLEST <= self.size <= size_limits.SIDE,
            f"--size {self.size}: use {SMALLEST} to {size_limits.SIDE} pixels, or 0 for that of the images",
        )
        cli.check(self.steps >= 1, f"--steps {self.steps}: use 1 or more")
        cli.check(self.batch_size >= 2, f"--batch_size {self.batch_size}: use 2 or more")
        cli.check(
            0 < self.learning_rate < 10, f"--learning_rate {self.learning_rate}: use 0 to 10, e.g. 2e-3"
        )
        super().require_valid()


@dataclass(frozen=True, kw_only=True)
class Sets(cli.Options):
    """What is trained and scored on."""

    train: str = ""
    """Set to train on: a folder, a Hugging Face dataset, shards/, `fruit` or `demo` (required)."""
    test: str = ""
    """Set whose test split is scored, or all its images where it has none (required)."""
    output: Path = Path("classifier")
    """Folder for model.safetensors, scores.json and predictions.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Classify(Sets, Training, cli.Common):
    """Train one classifier, save it and print its scores on real test images."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is missing or out of range."""
        example = "e.g. --train fruit --test fruit, or --train shards/ --test fruit"
        cli.check(self.train != "", f"--train is missing: name the set to train on, {example}")
        cli.check(self.test != "", f"--test is missing: name the real set to score on, {example}")
        cli.check(
            self.validation != "mixed", "--validation mixed: for evaluate's mixtures; use real or none here"
        )
        super().require_valid()
