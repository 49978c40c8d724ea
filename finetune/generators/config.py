"""Options of `finetune/train_gan.py` and `finetune/train_vae.py`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from finetune.options import Monitoring
from orchard.cli import cli
from orchard.generators.files import FOLDER, Kind, Size
from orchard.images.framing import Fit

Augmentation = Literal["color", "translation", "cutout", "none"]
LEAST = {
    **dict.fromkeys(("steps", "width", "latent"), 1),
    **dict.fromkeys(("ema_decay", "shots", "preview_every", "save_every", "keep"), 0),
    **dict.fromkeys(("beta", "perceptual_weight"), 0),
    "batch_size": 2,
}
"""Lower limits of options."""


@dataclass(frozen=True, kw_only=True)
class Photos(cli.Options):
    """What is trained on."""

    classes: tuple[str, ...] = ()
    """Classes to train on, all in one generator; all of the set by default."""
    shots: int = 0
    """Real images per class, drawn with the seed; 0 takes all."""
    fit: Fit = "pad"
    """pad: whole photos, on white where they are not square; crop: their centres, moved so that no object
    with a known box is cut."""
    flip: bool = True
    """Mirror half of the images; turn off where a mirror image is another class, such as digits."""
    skip_bad: bool = False
    """Leave out files that are not whole images instead of stopping at them."""


@dataclass(frozen=True, kw_only=True)
class Network(cli.Options):
    """The generator."""

    size: Size = 64
    """Side of its images in pixels."""
    width: int = 32
    """Channels of its last layer but one; the layers before have twice as many each."""
    latent: int = 64
    """Random numbers that an image is made from."""
    ema_decay: float = 0.99
    """The generator that is kept is a moving average of the trained weights; 0 keeps the last ones."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints(cli.Options):
    """Stopping, resuming, and where the generator goes."""

    save_every: int = 500
    """Steps between checkpoints; 0 saves only when a signal stops the run."""
    keep: int = 2
    """Newest checkpoints to keep; 0 keeps all."""
    resume: str = ""
    """`latest`, or a checkpoint folder: resume exactly where a run stopped."""
    output: Path = FOLDER
    """Folder for gan.safetensors or vae.safetensors."""


@dataclass(frozen=True, kw_only=True)
class TrainGenerator(Photos, Network, Monitoring, Checkpoints, cli.Common):
    """What training a GAN and a VAE have in common."""

    kind: ClassVar[Kind]
    accumulation: ClassVar[int] = 1
    validate_every: ClassVar[int] = 0
    """Options of train_lora.py that the code of both reads."""
    steps: int
    batch_size: int
    learning_rate: float

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.require_distinct("--classes", self.classes)
        for name, value in vars(self).items():
            if name not in LEAST:
                continue
            cli.check(LEAST[name] <= value < math.inf, f"--{name} {value}: give {LEAST[name]} or more")
        for name, most in (("width", 1024), ("latent", 4096)):
            value = getattr(self, name)
            cli.check(value <= most, f"--{name} {value}: give 1 to {most}")
        rate, decay = self.learning_rate, self.ema_decay
        cli.check(0 < rate < 1, f"--learning_rate {rate}: give more than 0, less than 1")
        cli.check(decay < 1, f"--ema_decay {decay}: give 0 (off) or more, less than 1")


@dataclass(frozen=True, kw_only=True)
class Adversarial(cli.Options):
    """The training of a GAN."""

    steps: int = 2000
    """Optimiser steps of each of the two networks."""
    batch_size: int = 32
    """Real images per step, and as many generated ones; divided among all processes."""
    learning_rate: float = 4e-4
    """Rate of Adam for the generator; the discriminator's is twice as high."""
    diffaugment: tuple[Augmentation, ...] = ("color", "translation", "cutout")
    """What is done to the images that the discriminator sees, real and generated alike (Zhao et al. 2020), so
    that it cannot learn a few photos by heart; `none` for nothing."""


@dataclass(frozen=True, kw_only=True)
class TrainGan(Adversarial, TrainGenerator):
    """Train one conditional GAN on all classes of the real set, from nothing."""

    kind: ClassVar[Kind] = "gan"

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.require_distinct("--diffaugment", self.diffaugment)
        alone = "none" not in self.diffaugment or len(self.diffaugment) == 1
        cli.check(alone and bool(self.diffaugment), "--diffaugment none: name it alone")


@dataclass(frozen=True, kw_only=True)
class Variational(cli.Options):
    """The training of a VAE."""

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 32
    """Images per step, divided among all processes."""
    learning_rate: float = 1e-3
    """Rate of Adam."""
    beta: float = 10.0
    """Weight of the divergence from the prior, in nats over pixel values: with less, samples are sharper and
    fewer of them whole."""
    perceptual_weight: float = 1.0
    """Weight of the differences of edges at every scale, beside those of pixels; 0 leaves them out."""


@dataclass(frozen=True, kw_only=True)
class TrainVae(Variational, TrainGenerator):
    """Train one conditional VAE on all classes of the real set, from nothing."""

    kind: ClassVar[Kind] = "vae"
