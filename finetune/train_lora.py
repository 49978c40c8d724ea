"""Train LoRA adapters on a real labelled set: ``accelerate launch finetune/train_lora.py``."""

from finetune.config import TrainLora
from orchard.cli import cli

if __name__ == "finetune.train_lora":  # it would hide the function of this name from then on
    raise ImportError("finetune/train_lora.py is a script; `from finetune import train_lora` is the function")


def main(config: TrainLora) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from finetune.command import run

    run(config)


if __name__ == "__main__":
    cli.run(TrainLora, main, "finetune/train_lora.py")
