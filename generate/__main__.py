"""``python -m generate``."""

from generate.config import Generate
from orchard.cli import cli


def main(config: Generate) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from generate.command import generate
    from orchard import devices

    generate(config)
    devices.processes().destroy_process_group()


if __name__ == "__main__":
    cli.run(Generate, main, "python -m generate")
