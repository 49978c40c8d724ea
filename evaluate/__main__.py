"""``python -m evaluate``."""

from evaluate.config import Evaluate
from orchard.cli import cli


def main(config: Evaluate) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from evaluate.command import run

    run(config)


if __name__ == "__main__":
    cli.run(Evaluate, main, "python -m evaluate")
