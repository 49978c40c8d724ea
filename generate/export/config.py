"""Options of `python -m generate.export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchard.cli import cli

Format = Literal["imagefolder", "webdataset", "coco", "csv"]


@dataclass(frozen=True, kw_only=True)
class Target(cli.Options):
    """What is written where."""

    synthetic: str = "shards"
    """The set that generate wrote: a folder, here or behind an fsspec URL."""
    format: Format = "imagefolder"
    """imagefolder: a folder of images per class; webdataset: tar files of images, classes and facts; coco:
    images and annotations.json, with boxes where they are known; csv: images and metadata.csv."""
    output: Path = Path("export")
    """Folder to write, which is not there yet or empty."""


@dataclass(frozen=True, kw_only=True)
class Export(Target, cli.Command):
    """Write a synthetic set in the format of another tool; rejected images are left out."""
