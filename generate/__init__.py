"""A labelled synthetic set, sampled from LoRA adapters into shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from generate.config import Generate
from orchard.cli import cli

if TYPE_CHECKING:
    from orchard.images.images import ImageSet


def generate(config: Generate | Path | str | None = None, **options: Any) -> "ImageSet | None":
    """Sample a labelled synthetic set, as ``python -m generate`` does.

    ``config`` is a `Generate` or a recipe's path; ``options`` are fields of `Generate` and win over it.

    Returns:
        The whole set in the folder, as `orchard.shards.read` gives it: its ``name`` is the folder, and
        `orchard.images.images.Photo.image` of each photo the picture. None with ``dry_run``.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from generate.command import generate as run
    from orchard import devices, shards
    from orchard.files import storage

    given = cli.resolve(Generate, config, options, "python -m generate")
    run(given)
    if given.dry_run:
        return None
    devices.processes().wait_for_everyone()  # the first one writes the manifest
    return shards.read(storage.location(given.output))
