"""Options of `python -m evaluate.audit`."""

from dataclasses import dataclass
from pathlib import Path

from orchard.cli import cli


@dataclass(frozen=True, kw_only=True)
class Subject(cli.Options):
    """What is attacked, and how long."""

    lora: tuple[str, ...] = ()
    """Adapter files that finetune wrote, all on one base."""
    base: str = ""
    """The base, where it lies elsewhere than the adapters say."""
    synthetic: str = ""
    """A set that generate wrote, here or behind an fsspec URL."""
    draws: int = 16
    """Noise levels at which each photo's loss is measured."""
    count: int = 50
    """Images per class to draw from the adapters and compare with their photos; 0 for none."""
    output: Path = Path("audit")
    """Folder for audit.json, and for the losses and images that it rests on."""


@dataclass(frozen=True, kw_only=True)
class Audit(Subject, cli.Common):
    """Find out whether adapters and synthetic sets give away which photos they were made from."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        cli.check(bool(self.lora or self.synthetic), "--lora or --synthetic: give what is to be attacked")
        cli.require_distinct("--lora", self.lora)
        cli.check(1 <= self.draws <= 10_000, f"--draws {self.draws}: give 1 to 10000")
        cli.check(0 <= self.count <= 1_000_000, f"--count {self.count}: give 0 to a million")
        super().require_valid()
