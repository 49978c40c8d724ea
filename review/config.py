"""Options of `python -m review`."""

from dataclasses import dataclass

from orchard.cli import cli


@dataclass(frozen=True, kw_only=True)
class Reviewing(cli.Options):
    """What is looked through, by whom, and where the page is."""

    data: str = "fruit"
    """The real set: a folder, a dataset on the Hub, `fruit` (the Kaggle set) or `demo` (rendered)."""
    synthetic: str = ""
    """Synthetic set to look through, beside the training photos of its classes in --data (none: beside
    nothing). Without it the photos of --data are looked through, with what is odd about them."""
    backbone: str = ""
    """A DINOv2 or CLIP by whose features possible mislabels are found: a folder, or a Hub id that is on this
    machine. By default by colours and edges."""
    reviewer: str = ""
    """Name that the decisions are saved under; by default that of the user of this machine."""
    port: int = 0
    """Port of the page on 127.0.0.1; 0 takes a free one."""


@dataclass(frozen=True, kw_only=True)
class Review(Reviewing, cli.Command):
    """Look through a set in the browser: keep or reject images, before hours are spent on them."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.check(0 <= self.port < 2**16, f"--port {self.port}: give 1 to 65535, or 0 for a free one")
        cli.check(
            not (self.synthetic and self.backbone),
            "--backbone: is for the photos of --data, so leave out --synthetic",
        )
        cli.check(
            "://" not in self.synthetic,
            f"--synthetic {self.synthetic}: decisions are saved in its folder; copy the set to this machine",
        )
        cli.check(
            len(self.reviewer) <= 100 and self.reviewer.isprintable(),
            "--reviewer: give a name of up to 100 characters, on one line",
        )
