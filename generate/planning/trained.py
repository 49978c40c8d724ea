"""`--generator`: the file of a GAN or VAE that finetune trained."""

from dataclasses import dataclass
from pathlib import Path

from orchard.files.atomic import file_hash
from orchard.generators import files
from orchard.generators.files import Record


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A generator's file."""

    path: Path
    digest: str
    record: Record

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""
        return self.record.size

    @property
    def name(self) -> str:
        """How a plan calls it."""
        return f"{self.record.kind} {self.path.name}"

    @property
    def data(self) -> list[str]:
        """Names of the real sets that it was trained on."""
        return [self.record.data]


def read(name: str) -> Trained:
    """The generator that ``--generator`` names, its weights unread.

    Raises:
        UserError: no such file, or not a generator's.
    """
    path = files.find(name)
    return Trained(path=path, digest=file_hash(path), record=files.read(path))
