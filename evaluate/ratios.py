"""Shares of real images -> how many real and synthetic images of each class a mixture takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchard.cli import split_list
from orchard.errors import UserError
from orchard.images import Photo
from orchard.splits import subset

ALL = (1.0, 0.5, 0.3, 0.0)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Images a class: ``real[name]`` and ``synthetic[name]``."""

    ratio: float
    real: Mapping[str, int]
    synthetic: Mapping[str, int]


def parse(words: Sequence[str], design: str = "substitute") -> list[float]:
    """``("all",)`` or ``("1,0.5", "0.3")`` -> shares of real images, largest first, without repeats.

    In the augment design, which keeps all real images, ``all`` is without 0.

    Raises:
        UserError: not a number from 0 to 1.
    """
    shares: set[float] = set()
    for word in split_list(words):
        if word == "all":
            shares.update(share for share in ALL if share or design != "augment")
            continue
        try:
            share = float(word)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise UserError(f"--ratios {word}: give `all` or shares of real images from 0 to 1, such as 0.3")
        shares.add(share)
    if not shares:
        raise UserError("--ratios: empty; give `all` or shares of real images such as 1.0 0.3")
    return sorted(shares, reverse=True)


def mix(design: str, ratio: float, real: Mapping[str, int], total: int = 0) -> Mixture:
    """The mixture of one arm, from the real images there are of each class.

    substitute keeps each class's share of ``total`` (0: of the real images); augment keeps all real
    images and adds synthetic ones until the real share is ``ratio``.

    Raises:
        UserError: augment with ratio 0, or more real images asked for than there are.
    """
    if design == "augment":
        if ratio == 0:
            raise UserError("--ratios 0: the augment design keeps all real images; give more than 0")
        added = {name: round(count * (1 - ratio) / ratio) for name, count in real.items()}
        return Mixture(ratio=ratio, real=dict(real), synthetic=added)
    everything = sum(real.values())
    wanted = {name: round(count * total / everything) if total else count for name, count in real.items()}
    if min(wanted.values()) < 1:
        raise UserError(f"--total {total}: leaves a class without an image; give {len(real)} or more")
    kept = {name: round(ratio * count) for name, count in wanted.items()}
    for name, count in kept.items():
        if count > real[name]:
            raise UserError(
                f"--total {total}: share {ratio:g} needs {count} real {name} images, there are {real[name]}; "
                "lower --total or --ratios"
            )
    return Mixture(ratio=ratio, real=kept, synthetic={name: wanted[name] - kept[name] for name in wanted})


def require_enough(needs: Sequence[Mapping[str, int]], there: Mapping[str, int], folder: object) -> None:
    """Raise `UserError` when an arm ``needs`` more synthetic images of a class than are ``there``."""
    most = {name: max(needed[name] for needed in needs) for name in there}
    for name, count in most.items():
        if there[name] < count:
            how = f"--count {max(most.values())} or more" if there[name] else f"the adapter of {name}"
            raise UserError(
                f"--synthetic {folder}: {there[name]} images of {name}, the mixtures need {count}; "
                f"run python -m generate with {how}"
            )


def draw(photos: Sequence[Photo], counts: Mapping[str, int], *salt: object) -> list[Photo]:
    """``counts[name]`` photos of each class; a smaller draw lies in a larger one."""
    by_class = {name: [p for p in photos if p.label == name] for name in counts}
    return [photo for name, count in counts.items() for photo in subset(by_class[name], count, *salt, name)]
