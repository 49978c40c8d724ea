"""Shares of real images -> how many real and synthetic images of each class a mixture takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchard.cli.cli import split_list
from orchard.errors import UserError
from orchard.images.images import Photo
from orchard.images.splits import subset

ALL = (1.0, 0.5, 0.3, 0.0)
OFF = 0.05
"""How far an arm's share of real images may lie from its name for the sake of a small class."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Images per class: ``real[name]`` and ``synthetic[name]``."""

    ratio: float
    """The share of real images that was asked for."""
    real: Mapping[str, int]
    synthetic: Mapping[str, int]

    @property
    def share(self) -> float:
        """The share of real images that there is: images are whole."""
        real = sum(self.real.values())
        return real / (real + sum(self.synthetic.values()))


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
    images and adds synthetic ones until the real share is ``ratio``. A mixture has at least one real and one
    synthetic image of each class of two or more.

    Raises:
        UserError: augment with ratio 0, more real images asked for than there are, or a share that such
            small classes would miss by more than `OFF`.
    """
    if design == "augment" and ratio == 0:
        raise UserError("--ratios 0: the augment design keeps all real images; give more than 0")
    wanted = real if design == "augment" else _wanted(real, total)
    found = _mixture(design, ratio, wanted)
    # What plain rounding does to a share is in the plan; more than that has to leave it what it is called.
    if found != _mixture(design, ratio, wanted, least=0) and not _is_near(found):
        shares = sorted((k / 100 for k in range(1, 100)), key=lambda share: abs(share - ratio))
        works = next((share for share in shares if _is_near(_mixture(design, share, wanted))), 1.0)
        raise UserError(
            f"--ratios {ratio:g}: with one real and one synthetic image of each class at least, "
            f"{found.share:.0%} would be real; give {works:g}, or more photos of the smallest class"
        )
    _require_real(found, real, total)
    return found


def _wanted(real: Mapping[str, int], total: int) -> dict[str, int]:
    """Images of each class in a mixture of ``total``, as in the real set; 0: as many as there."""
    everything, least = sum(real.values()), min(real.values())
    wanted = {name: round(count * total / everything) if total else count for name, count in real.items()}
    if min(wanted.values()) < 1:
        enough = everything // (2 * least) + 1  # from half an image on a class has one
        raise UserError(f"--total {total}: leaves a class without an image; give {enough} or more")
    return wanted


def _mixture(design: str, ratio: float, wanted: Mapping[str, int], least: int = 1) -> Mixture:
    """At least so many real and so many synthetic images of each class that has two or more."""
    if ratio in (0.0, 1.0):
        real = {name: round(ratio) * count for name, count in wanted.items()}
        return Mixture(ratio=ratio, real=real, synthetic={name: wanted[name] - real[name] for name in wanted})
    if design == "augment":
        added = {name: max(round(count * (1 - ratio) / ratio), least) for name, count in wanted.items()}
        return Mixture(ratio=ratio, real=dict(wanted), synthetic=added)
    kept = {
        name: min(max(round(ratio * count), least), max(count - least, least))
        for name, count in wanted.items()
    }
    return Mixture(ratio=ratio, real=kept, synthetic={name: wanted[name] - kept[name] for name in wanted})


def _is_near(found: Mixture) -> bool:
    return abs(found.share - found.ratio) <= OFF


def _require_real(found: Mixture, real: Mapping[str, int], total: int) -> None:
    for name, count in found.real.items():
        if count > real[name]:
            raise UserError(
                f"--total {total}: share {found.ratio:g} needs {count} real {name} images, there are "
                f"{real[name]}; lower --total or --ratios"
            )


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
    by_class: dict[str, list[Photo]] = {name: [] for name in counts}
    for photo in photos:
        if photo.label in by_class:
            by_class[photo.label].append(photo)
    return [photo for name, count in counts.items() for photo in subset(by_class[name], count, *salt, name)]
