"""Several experiments on one page: sweeps over ratios, shots and folds live in folders of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate import integrity
from evaluate import records as lines
from orchard.errors import UserError
from orchard.run import differences

TRAINING = ("model", "pretrained", "steps", "batch_size", "learning_rate", "augmentation", "flip")
ALIKE = (*TRAINING, "validation", "size", "through", "precision", "decoding", "train", "test")
"""What has to be the same for arms of two experiments to stand in one table."""
SAME_IF_USED = ("synthetic", "untuned", "unscreened", "arms", "folds")
"""What has to be the same where both used it: else an arm's runs would have images of two generators."""


def require_alike(also: Sequence[Path], experiment: Mapping[str, Any]) -> None:
    """Raise `UserError` naming the first folder of ``also`` that is no experiment like this one."""
    for folder in also:
        if not (folder / lines.EXPERIMENT).is_file():
            raise UserError(f"--also {folder}: no {lines.EXPERIMENT} there; name an --output of evaluate")
        there = lines.noted(folder)
        names = (*ALIKE, *(name for name in SAME_IF_USED if there.get(name) and experiment.get(name)))
        changes = differences(*({name: of.get(name) for name in names} for of in (there, experiment)))
        if changes:
            raise UserError(f"--also {folder}: another kind of experiment: {changes}; leave it out")


def read(folder: Path, also: Sequence[Path]) -> list[dict[str, Any]]:
    """The runs of every folder, the experiment's own first; each with every field of this version.

    Raises:
        UserError: two folders hold the same run.
    """
    found: dict[lines.Key, dict[str, Any]] = {}
    for place in (folder, *also):
        for record in lines.read(place):
            key = lines.key(record)
            if key in found:
                raise UserError(
                    f"--also {place}: holds runs that another folder has too; leave one of them out"
                )
            found[key] = integrity.checked(lines.complete(record), place / lines.RECORDS)
    return list(found.values())
