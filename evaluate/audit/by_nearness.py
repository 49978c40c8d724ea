"""An attack on a synthetic set: photos that it was made from lie nearer to one of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.audit import attacks
from evaluate.audit.attacks import Attack
from evaluate.audit.config import Audit
from orchard import shards
from orchard.cli import cli
from orchard.images import thumbnails
from orchard.images.images import TRAIN, ImageSet, Photo

NEAREST = "nearest synthetic image"


@dataclass(frozen=True, kw_only=True)
class Parted:
    """Photos of one class: those that a generator was trained on, and others."""

    members: Sequence[Photo]
    others: Sequence[Photo]
    told: bool
    """Whether by a ledger; else the training split are the members."""

    @property
    def described(self) -> str:
        """For the plan."""
        how = "by the ledger" if self.told else "taken to be the training split"
        found = f"{len(self.members)} photos trained on ({how}), {len(self.others)} others"
        return found if self.members and self.others else f"{found}: no attack"


def parted(photos: ImageSet, manifest: shards.Manifest, config: Audit) -> dict[str, Parted]:
    """The photos of each class of a set.

    Raises:
        UserError: it was made from photos, of which ``--data`` has none, or none besides.
    """
    ledger, found = frozenset(manifest["trained_on"]), {}
    for label in manifest["rows"]:
        told = label not in manifest["unknown_ledger"]
        sides: dict[bool, list[Photo]] = {True: [], False: []}
        for photo in photos.photos:
            if photo.label == label:
                sides[photo.sha256 in ledger if told else photo.split == TRAIN].append(photo)
        found[label] = Parted(members=sides[True], others=sides[False], told=told)
    tuned = bool(ledger or manifest["unknown_ledger"])
    cli.check(
        not tuned or any(one.members and one.others for one in found.values()),
        f"--data {config.data}: has no class with both photos that {config.synthetic} was made from and "
        "others; give the set that it was made from, test images and all",
    )
    return found


def attack(synthetic: ImageSet, parts: Mapping[str, Parted]) -> list[Attack]:
    """Class by class, and behind several their mean; none of a class that was made from no photo, or all."""
    found = []
    for label, one in parts.items():
        if one.members and one.others:
            images = [photo for photo in synthetic.photos if photo.label == label]
            references = [thumbnails.References(framing) for framing in thumbnails.of_photos(images)]
            sides = (_nearness(references, side) for side in (one.members, one.others))
            found.append(attacks.attack(label, NEAREST, *sides))
    return [*found, *([attacks.mean(found)] if len(found) > 1 else [])]


def _nearness(references: Sequence[thumbnails.References], photos: Sequence[Photo]) -> list[float]:
    """Of each photo the negative distance to the nearest image, whole or by its centre square."""
    framings = zip(references, thumbnails.of_photos(photos), strict=True)
    return (-np.min([one.nearest(framing) for one, framing in framings], axis=0)).tolist()
