"""Options of `python -m evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from classify.config import TrainingOptions
from orchard import cli

Design = Literal["substitute", "augment"]


@dataclass(frozen=True, kw_only=True)
class Evaluate(TrainingOptions):
    """Train classifiers on mixtures of real and synthetic images and score them on real test images."""

    ratios: tuple[str, ...] = ("all",)
    """Shares of real images, 0 to 1; `all` is the report's four: 1.0 0.5 0.3 0.0."""
    synthetic: Path = Path("shards")
    """Folder that `python -m generate` wrote."""
    design: Design = "substitute"
    """substitute: the total stays, real images give way; augment: all real ones stay, synthetic ones join."""
    seeds: int = 5
    """Runs of each mixture: seeds --seed, --seed + 1, and so on."""
    total: int = 0
    """Images in a mixture (substitute); 0 is the number of real training images."""
    also: tuple[Path, ...] = ()
    """Outputs of earlier experiments to show on the same page, e.g. the low-shot one beside the ratios."""
    margin: float = 2.0
    """Percentage points of accuracy that count as no loss, above 0 (non-inferiority)."""
    backbone: str = ""
    """Also measure the domain gap by this image model, a folder or Hub id on disk: facebook/dinov2-small."""
    output: Path = Path("evaluation")
    """Folder for records.jsonl, metrics.csv, arms.csv, analysis.json and report.html."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        cli.check(self.seeds >= 1, f"--seeds {self.seeds}: give 1 or more")
        cli.check(self.total >= 0, f"--total {self.total}: give 0 or more")
        cli.check(
            not self.total or self.design == "substitute",
            f"--total {self.total}: only in the substitute design; augment keeps all real images",
        )
        cli.check(0 < self.margin < 100, f"--margin {self.margin:g}: give points above 0, below 100")
        super().require_valid()
