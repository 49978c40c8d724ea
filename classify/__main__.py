"""``python -m classify --train SET --test SET``: parse first, import the heavy parts after."""

from classify.config import Classify
from orchard.cli import cli


def main(config: Classify) -> None:
    """Run the command that ``config`` describes."""
    from classify.command import run

    run(config)


if __name__ == "__main__":
    cli.run(Classify, main, "python -m classify")
