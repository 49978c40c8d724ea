"""``python -m finetune.losses``."""

from finetune.losses.config import Losses
from orchard.cli import cli


def main(config: Losses) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from finetune.losses.command import losses

    losses(config)


if __name__ == "__main__":
    cli.run(Losses, main, "python -m finetune.losses")
