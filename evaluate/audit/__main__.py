"""``python -m evaluate.audit``."""

from evaluate.audit.config import Audit
from orchard.cli import cli


def main(config: Audit) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from evaluate.audit.command import audit

    audit(config)


if __name__ == "__main__":
    cli.run(Audit, main, "python -m evaluate.audit")
