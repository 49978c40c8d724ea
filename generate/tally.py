"""What came of the images that were asked for."""

from dataclasses import dataclass
from pathlib import Path

from orchard import shards


@dataclass(kw_only=True)
class Tally:
    """Counts of images, in a run or in a folder."""

    asked: int = 0
    written: int = 0
    flagged: int = 0
    """Given up for being no data, and sampled anew with other seeds."""
    rejected: int = 0
    """Kept apart by a screen, and replaced by further rows."""

    def __str__(self) -> str:
        return f"asked {self.asked}, written {self.written}, flagged {self.flagged}, rejected {self.rejected}"


def of_folder(folder: Path, label: str | None = None) -> Tally:
    """What the folder was asked for and holds, of one class or of all."""
    kept, rejected = (
        [shard for shard in shards.existing(folder, split) if label in (None, shard.origin.label)]
        for split in (shards.TRAIN, shards.REJECTED)
    )
    return Tally(
        asked=sum(shards.asked([*kept, *rejected]).values()),
        written=sum(shard.rows for shard in kept),
        flagged=sum(map(shards.given_up, [*kept, *rejected])),
        rejected=sum(shard.rows for shard in rejected),
    )
