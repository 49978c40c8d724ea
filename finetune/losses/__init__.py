"""How well adapters know single photos: ``python -m finetune.losses``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.losses.config import Losses
from orchard.cli import cli

if TYPE_CHECKING:
    from finetune.losses.measure import PhotoLoss


def losses(config: Losses | Path | str | None = None, **options: Any) -> "dict[str, list[PhotoLoss]]":
    """Measure the loss of every photo with adapters and without, as ``python -m finetune.losses`` does.

    ``config`` is a `Losses` or a recipe's path; ``options`` are fields of `Losses` and win over it.

    Returns:
        Adapter file -> the losses of its classes' photos. Nothing with ``dry_run``.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from finetune.losses.command import losses as run

    return run(cli.resolve(Losses, config, options, "python -m finetune.losses"))
