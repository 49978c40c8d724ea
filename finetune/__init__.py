"""One LoRA adapter per class, trained on real photos."""

from pathlib import Path
from typing import Any

from finetune.config import TrainLora
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
