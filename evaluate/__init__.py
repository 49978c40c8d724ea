"""What a synthetic image is worth to a classifier."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluate.config import Evaluate
from orchard.cli import cli

if TYPE_CHECKING:
    from evaluate.command import Evaluated


def evaluate(config: Evaluate | Path | str | None = None, **options: Any) -> "Evaluated | None":
    """Measure what synthetic images are worth to a classifier, as ``python -m evaluate`` does.

    ``config`` is an `Evaluate` or a recipe's path; ``options`` are fields of `Evaluate` and win over it.

    Returns:
        The analysis, the path of the report, and the runs that failed. None with ``dry_run``, and in all
        processes of a launch but the first.

    Raises:
        UserError: something that the caller can fix, in one line; or no run succeeded.
    """
    from evaluate.command import evaluate as run

    return run(cli.resolve(Evaluate, config, options, "python -m evaluate"))
