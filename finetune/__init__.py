"""One LoRA adapter per class, or a GAN or VAE of all classes, trained on real photos."""

from pathlib import Path
from typing import Any

from finetune.config import TrainLora
from finetune.generators.config import TrainGan, TrainVae
from orchard.cli import cli


def train_lora(config: TrainLora | Path | str | None = None, **options: Any) -> dict[str, Path]:
    """Train LoRA adapters, as ``finetune/train_lora.py`` does.

    ``config`` is a `TrainLora` or a recipe's path; ``options`` are fields of `TrainLora` and win over it.

    Returns:
        Class -> its adapter, whether this call or an earlier one trained it; with ``joint`` all classes have
        the same file. Empty with ``dry_run``.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from finetune.command import train

    return train(cli.resolve(TrainLora, config, options, "finetune/train_lora.py"))


def train_gan(config: TrainGan | Path | str | None = None, **options: Any) -> Path | None:
    """Train a conditional GAN, as ``finetune/train_gan.py`` does; its file, None with ``dry_run``.

    Arguments and errors as of `train_lora`.
    """
    from finetune.generators.command import train

    return train(cli.resolve(TrainGan, config, options, "finetune/train_gan.py"))


def train_vae(config: TrainVae | Path | str | None = None, **options: Any) -> Path | None:
    """Train a conditional VAE, as ``finetune/train_vae.py`` does; its file, None with ``dry_run``.

    Arguments and errors as of `train_lora`.
    """
    from finetune.generators.command import train

    return train(cli.resolve(TrainVae, config, options, "finetune/train_vae.py"))
