"""Train a conditional VAE on a real labelled set: ``accelerate launch finetune/train_vae.py``."""

from finetune.generators.config import TrainVae
from orchard.cli import cli

if __name__ == "finetune.train_vae":  # it would hide the function of this name from then on
    raise ImportError("finetune/train_vae.py is a script; `from finetune import train_vae` is the function")


def main(config: TrainVae) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from finetune.generators.command import run

    run(config)


if __name__ == "__main__":
    cli.run(TrainVae, main, "finetune/train_vae.py")
