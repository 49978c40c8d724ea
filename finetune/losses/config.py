"""Options of `python -m finetune.losses`."""

from dataclasses import dataclass
from pathlib import Path

from orchard.cli import cli


@dataclass(frozen=True, kw_only=True)
class Subject(cli.Options):
    """What is measured."""

    lora: tuple[str, ...] = ()
    """Adapter files that finetune wrote, all on one base."""
    base: str = ""
    """The base, where it lies elsewhere than the adapters say."""
    draws: int = 16
    """Noise levels per photo, each with noise of its own: the same with and without the adapter."""
    output: Path = Path("losses.json")
    """File to write."""


@dataclass(frozen=True, kw_only=True)
class Losses(Subject, cli.Common):
    """Measure the loss of every photo of a set, with an adapter and without it."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        cli.check(bool(self.lora), "--lora: give the adapter files to measure")
        cli.require_distinct("--lora", self.lora)
        cli.check(1 <= self.draws <= 10_000, f"--draws {self.draws}: give 1 to 10000")
        super().require_valid()
