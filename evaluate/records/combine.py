"""Several experiments on one page: sweeps over ratios, shots and folds live in folders of their own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate.records import records as lines
from evaluate.records import validate
from orchard.errors import UserError, differences
from orchard.files import json_lines
from orchard.images.images import ImageSet

TRAINING = ("model", "pretrained", "steps", "batch_size", "learning_rate", "augmentation", "flip")
ALIKE = (*TRAINING, "validation", "size", "through", "precision", "decoding", "train", "test")
"""What has to be the same for arms of two experiments to stand in one table."""
SAME_IF_USED = ("arms", "folds")
"""What has to be the same where both used it: else an arm's runs would have images of two generators."""
GIVEN = ("synthetic", "unscreened")
"""Likewise where mixtures have the same total; with another one they are other arms."""


def require_alike(also: Sequence[Path], experiment: Mapping[str, Any]) -> None:
    """Raise `UserError` naming the first folder of ``also`` that is no experiment like this one."""
    for folder in also:
        if not (folder / lines.EXPERIMENT).is_file():
            raise UserError(f"--also {folder}: no {lines.EXPERIMENT} there; name an --output of evaluate")
        there = lines.noted(folder)
        totals = {of.get("total") for of in (there, experiment)} - {None}
        shared = SAME_IF_USED if len(totals) > 1 else (*SAME_IF_USED, *GIVEN)
        names = (*ALIKE, *(name for name in shared if there.get(name) and experiment.get(name)))
        changes = differences(*({name: of.get(name) for name in names} for of in (there, experiment)))
        if changes:
            raise UserError(f"--also {folder}: another kind of experiment: {changes}; leave it out")


def read(folder: Path, also: Sequence[Path]) -> list[lines.Record]:
    """The runs of every folder, the experiment's own first; each with every field of this version.

    An external set has one name in all of them, and two sets have two names.

    Raises:
        UserError: two folders hold the same run.
    """
    found: dict[lines.Key, lines.Record] = {}
    names: dict[str, str] = {}
    for place in (folder, *also):
        called = _names(place, names)
        for record in lines.read(place):
            key = lines.key(record)
            if key in found:
                raise UserError(
                    f"--also {place}: holds runs that another folder has too; leave one of them out"
                )
            whole = validate.checked(lines.complete(record), place / lines.RECORDS)
            external = {called.get(name, name): scores for name, scores in whole["external"].items()}
            found[key] = {**whole, "external": external}
    return list(found.values())


def named(folder: Path, external: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    """The external sets by the names that they have in the records of ``folder``, else by their own.

    Raises:
        UserError: a name there means other images, or a set is given twice.
    """
    noted = lines.noted(folder)["external"] if json_lines.has_one(folder / lines.RECORDS) else {}
    known = {digest: name for name, digest in noted.items()}
    found: dict[str, ImageSet] = {}
    for name, images in external.items():
        if noted.get(name, images.digest()) != images.digest():
            raise UserError(
                f"--external {name}: other images than the set of that name that runs in {folder} were "
                "scored on; rename it, or choose another --output"
            )
        place = known.get(images.digest(), name)
        if place in found:
            raise UserError(f"--external {name}: the same images as another of these sets; leave it out")
        known[images.digest()] = place
        found[place] = images
    return found


def _names(folder: Path, known: dict[str, str]) -> dict[str, str]:
    """What each external set of ``folder`` is called on the page; ``known``, by digest, learns of them."""
    noted = lines.noted(folder)["external"] if (folder / lines.EXPERIMENT).is_file() else {}
    for name, digest in noted.items():
        known.setdefault(digest, f"{name} of {folder}" if name in known.values() else name)
    return {name: known[digest] for name, digest in noted.items()}
