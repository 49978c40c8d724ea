"""``python -m review``."""

from orchard.cli import cli
from review.config import Review


def main(config: Review) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from review.command import review

    review(config)


if __name__ == "__main__":
    cli.run(Review, main, "python -m review")
