"""``python -m generate.export``."""

from generate.export.config import Export
from orchard.cli import cli


def main(config: Export) -> None:
    """Hand over to the command; heavy imports start here, after parsing."""
    from generate.export.command import export

    export(config)


if __name__ == "__main__":
    cli.run(Export, main, "python -m generate.export")
