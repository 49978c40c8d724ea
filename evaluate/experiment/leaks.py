"""Refusals, by name, of whatever has seen an image that it will be scored on."""

from collections.abc import Mapping, Set

from orchard import shards
from orchard.errors import UserError
from orchard.images.images import ImageSet

Scored = Mapping[str, ImageSet]
"""Sets that classifiers are scored on, by the option that named them."""


def require_unseen(who: str, seen: Set[str], scored: Scored, fix: str = "name other sets") -> None:
    """Raise `UserError` naming an image of ``scored`` that is among the hashes ``seen``."""
    for where, images in scored.items():
        found = [photo.path for photo in images.photos if photo.sha256 in seen]
        if found:
            plural = "image" if len(found) == 1 else "images"
            raise UserError(f"{who} has seen {len(found)} test {plural} of {where}, e.g. {found[0]}; {fix}")


def require_honest(who: str, manifest: shards.Manifest, synthetic: ImageSet, scored: Scored) -> None:
    """Raise `UserError` when a synthetic set's generator, screens or rows have seen a scored image."""
    fix = "train adapters on the training split of --data"
    require_unseen(f"{who}: its generator", frozenset(manifest["trained_on"]), scored, fix)
    fix = "screen with the training split of --data"
    for name, seen in manifest["screened_with"].items():
        require_unseen(f"{who}: its screen {name}", frozenset(seen), scored, fix)
    require_unseen(
        f"{who}: among its images it", synthetic.hashes(), scored, "remove images that are not synthetic"
    )


def require_own(who: str, manifest: shards.Manifest, allowed: Set[str]) -> None:
    """Raise `UserError` unless what made an arm's own images, screens included, saw ``allowed`` alone."""
    unknown = manifest["unknown_ledger"]
    strangers = set(manifest["trained_on"]).union(*manifest["screened_with"].values()) - set(allowed)
    if unknown or strangers:
        what = (
            f"{len(strangers)} images that are not the arm's"
            if strangers
            else "images that were not recorded"
        )
        raise UserError(f"{who}: its adapters or screens have seen {what}; remove the folder and run again")
