"""What adapters and synthetic sets give away of single photos: ``python -m evaluate.audit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluate.audit.config import Audit
from orchard.cli import cli

if TYPE_CHECKING:
    from evaluate.audit.command import Audited


def audit(config: Audit | Path | str | None = None, **options: Any) -> "list[Audited]":
    """Attack adapters and sets, as ``python -m evaluate.audit`` does.

    ``config`` is an `Audit` or a recipe's path; ``options`` are fields of `Audit` and win over it.

    Returns:
        What was found of each adapter, of all together and of the set. Nothing with ``dry_run``.

    Raises:
        UserError: something that the caller can fix, in one line.
    """
    from evaluate.audit.command import audit as run

    return run(cli.resolve(Audit, config, options, "python -m evaluate.audit"))
