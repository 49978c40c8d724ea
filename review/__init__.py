"""A page on this machine where a person looks through a set and keeps or rejects its images."""

from pathlib import Path
from typing import Any

from orchard.cli import cli
from review.config import Review


def review(config: Review | Path | str | None = None, **options: Any) -> dict[str, str]:
    """Serve the page until Ctrl-C, as ``python -m review`` does.

    ``config`` is a `Review` or a recipe's path; ``options`` are fields of `Review` and win over it.

    Returns:
        Name of each image that was decided on -> ``keep`` or ``reject``.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from review.command import review as run

    return run(cli.resolve(Review, config, options, "python -m review"))
