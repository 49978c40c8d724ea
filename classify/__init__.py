"""One classifier, trained on a labelled image set and scored on real test images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.config import Classify
from orchard.cli import cli

if TYPE_CHECKING:
    from classify.command import Classified


def classify(config: Classify | Path | str | None = None, **options: Any) -> "Classified | None":
    """Train and score one classifier, as ``python -m classify`` does.

    ``config`` is a `Classify` or a recipe's path; ``options`` are fields of `Classify` and win over it.

    Returns:
        The scores and the path of the classifier. None with ``dry_run``, and in every process but the first.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from classify.command import classify as run

    return run(cli.resolve(Classify, config, options, "python -m classify"))
