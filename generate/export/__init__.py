"""A synthetic set in other formats: ``python -m generate.export``."""

from pathlib import Path
from typing import Any

from generate.export.config import Export
from orchard.cli import cli


def export(config: Export | Path | str | None = None, **options: Any) -> Path | None:
    """Write a set in another format, as ``python -m generate.export`` does.

    ``config`` is an `Export` or a recipe's path; ``options`` are fields of `Export` and win over it.

    Returns:
        The folder that was written. None with ``dry_run``.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from generate.export.command import export as run

    given = cli.resolve(Export, config, options, "python -m generate.export")
    run(given)
    return None if given.dry_run else given.output
