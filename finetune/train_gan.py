"""Train a conditional GAN on a real labelled set: ``accelerate launch finetune/train_gan.py``."""

from finetune.generators.config import TrainGan
from orchard.cli import cli

if __name__ == "finetune.train_gan":  # it would hide the function of this name from then on
    raise ImportError("finetune/train_gan.py is a script; `from finetune import train_gan` is the function")


def main(config: TrainGan) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from finetune.generators.command import run

    run(config)


if __name__ == "__main__":
    cli.run(TrainGan, main, "finetune/train_gan.py")
