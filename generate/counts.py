"""How many images each class gets."""

from collections.abc import Sequence
from typing import Literal

from generate.config import Generate
from orchard import sources
from orchard.errors import UserError
from orchard.images import TRAIN

USUAL, MOST_FILES = 200, 10**5
LARGEST: Literal["largest"] = "largest"


def rows_of(config: Generate, labels: Sequence[str]) -> dict[str, int]:
    """Rows a class, by ``--count``, ``--total`` or ``--balance``; more asked for never means fewer rows.

    Raises:
        UserError: ``--balance`` finds nothing to fill, the real set lacks a class, or there would be more
            files than a folder takes well.
    """
    found = _rows_of(config, labels)
    files = -(-max(found.values()) // config.shard_size)
    if files > MOST_FILES:
        raise UserError(f"--shard_size {config.shard_size}: makes {files} files a class; give more")
    return found


def _rows_of(config: Generate, labels: Sequence[str]) -> dict[str, int]:
    if config.balance is not None:
        return _filling(config, labels)
    if config.total:
        each, left = divmod(config.total, len(labels))
        return {label: each + (place < left) for place, label in enumerate(labels)}
    return dict.fromkeys(labels, config.count or USUAL)


def _filling(config: Generate, labels: Sequence[str]) -> dict[str, int]:
    """What each class lacks of the largest one, or of the stated number; training images alone count."""
    there = sources.load(config.data).of(TRAIN).counts()
    unknown = [label for label in labels if label not in there]
    if unknown:
        raise UserError(
            f"--balance: --data {config.data} has no class {', '.join(unknown)}; name the real set"
        )
    goal = max(there.values()) if config.balance == LARGEST else int(config.balance or 0)
    lacking = {label: max(goal - there[label], 0) for label in labels}
    if not any(lacking.values()):
        have = ", ".join(f"{label} {there[label]}" for label in labels)
        raise UserError(f"--balance {config.balance}: nothing to fill, there is {have}; give a larger number")
    return lacking
