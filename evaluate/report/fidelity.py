"""How near synthetic images come to real ones: measured, kept in `FIDELITY`, and read from there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluate.analysis.analyse import as_json
from evaluate.analysis.generators import Measured
from evaluate.experiment.shown_images import ShownImages
from evaluate.gap import memorisation
from evaluate.gap.feature_metrics import Gaps
from evaluate.gap.measure import gaps
from evaluate.report.pictures import ReadPixels
from orchard.classifiers.embeddings import Embed
from orchard.cli.terminal import bar
from orchard.errors import UserError
from orchard.files import atomic, checked_json

FIDELITY = "fidelity.json"
GENERATORS = "generators"


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Of the images that are shown, and in few numbers of every generator's."""

    copies: str = ""
    """How many are near copies of real ones, in a sentence."""
    gaps: Gaps = field(default_factory=dict)
    generators: Sequence[Measured] = ()
    """Those of other commands and folders too."""


def measure(
    folder: Path,
    also: Sequence[Path],
    shown: Sequence[ShownImages],
    networks: Mapping[str, Embed],
    read: ReadPixels,
) -> Distances:
    """Measure every set of ``shown``, if it has images, and write what was found to ``folder``."""
    there = [one for place in (*also, folder) for one in _noted(place)]
    first, *_ = shown
    if not len(first.synthetic):
        return Distances(generators=there)
    copies, found = [], []
    with bar("measuring copies and gaps", len(shown), unit="generators", show=len(shown) > 1) as advance:
        for one in shown:
            copies.append(memorisation.measure(one.synthetic, one.real, one.test))
            # A network must not have seen the photos that are the yardstick.
            fair = one.test.hashes() == first.test.hashes()
            found.append(gaps(one, networks if fair else {}, read))
            advance(1)
    now = [_in_few(*of_one) for of_one in zip(shown, copies, found, strict=True)]
    generators = joined(there, now)
    whole = copies[0] | {"arm": first.arm, "gap": as_json(found[0]), GENERATORS: generators}
    atomic.write_json(folder / FIDELITY, whole)
    return Distances(copies=memorisation.sentence(copies[0]), gaps=found[0], generators=generators)


def joined(there: Iterable[Measured], now: Iterable[Measured]) -> list[Measured]:
    """The later one of each generator and kind of arm; what its images cost stays known once it is."""
    known: dict[object, Measured] = {}
    for one in (*there, *now):
        key = one["kind"], one["shots"], one["generator"]
        if one["seconds_per_image"] is None and key in known:
            before = known[key]
            costs = before["seconds_per_image"], before["seconds_to_train"]
            one = {**one, "seconds_per_image": costs[0], "seconds_to_train": costs[1]}
        known[key] = one
    return list(known.values())


def _in_few(shown: ShownImages, copies: Mapping[str, Any], found: Gaps) -> Measured:
    gap = next((sides["synthetic"] for sides in found.values()), None)
    return {
        "kind": shown.kind,
        "shots": shown.shots,
        "generator": shown.generator,
        "arm": shown.arm,
        "images": len(shown.synthetic),
        "share_near_train": copies["share_near_train"],
        "kid": gap.kid.mean if gap else None,
        "coverage": gap.manifold.coverage if gap else None,
        "seconds_per_image": shown.seconds_per_image,
        "seconds_to_train": shown.seconds_to_train,
    }


def _noted(folder: Path) -> list[Measured]:
    """What earlier commands measured of generators; nothing where they measured none."""
    path = folder / FIDELITY
    if not path.is_file():
        return []
    try:
        there = checked_json.table({}, checked_json.parse(checked_json.read(path)))
        # Earlier versions did not say what the training took.
        found = [{"seconds_to_train": None, **one} for one in there.get(GENERATORS, [])]
        return [checked_json.typed(Measured, one) for one in found]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it") from None
