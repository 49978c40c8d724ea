"""The image sets of an experiment, checked against each other before any pixel is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classify.sizes import Sizes, native, resolve
from evaluate.config import Evaluate
from orchard import cli, shards, sources, splits, storage
from orchard.errors import UserError
from orchard.images import TEST, TRAIN, ImageSet


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The three image sets, the manifest of the synthetic one, and the size they are brought to."""

    train: ImageSet
    test: ImageSet
    synthetic: ImageSet
    manifest: dict[str, Any]
    sizes: Sizes


def load(config: Evaluate, shares: Sequence[float]) -> Sets:
    """Load and check the sets; no pixels yet.

    Raises:
        UserError: a set is missing or short, classes differ, or the generator has seen a test image.
    """
    real = sources.load(config.data)
    splits.require_split(real)
    test = real.of(TEST)
    cli.check(len(test) > 0, f"--data {config.data}: no test images in it")
    train = real.of(TRAIN)
    if set(shares) == {1.0}:
        nothing = train.keep(())
        sizes = resolve(config.size, native(train.photos))
        return Sets(train=train, test=test, synthetic=nothing, manifest={}, sizes=sizes)
    folder = storage.place(config.synthetic)
    manifest = shards.read_manifest(folder)
    synthetic = shards.read(folder)
    if synthetic.classes != train.classes:
        raise UserError(
            f"--synthetic {config.synthetic}: classes {', '.join(synthetic.classes)}, but --data "
            f"{config.data} has {', '.join(train.classes)}; generate from adapters of this set"
        )
    _require_unseen(config, manifest, test)
    sizes = resolve(config.size, native(synthetic.photos))
    return Sets(train=train, test=test, synthetic=synthetic, manifest=manifest, sizes=sizes)


def _require_unseen(config: Evaluate, manifest: Mapping[str, Any], test: ImageSet) -> None:
    """Raise `UserError` naming who has seen a test image: the generator, or a screen of its images."""
    for who, seen in shards.ledger(manifest).items():
        leaked = [photo.path for photo in test.photos if photo.sha256 in seen]
        if leaked:
            remedy = "train adapters on" if who == shards.GENERATOR else "screen with"
            raise UserError(
                f"--synthetic {config.synthetic}: its {who} has seen {len(leaked)} test images, e.g. "
                f"{leaked[0]}; {remedy} the training split of --data {config.data}"
            )


def generator_notes(sets: Sets) -> list[str]:
    """What the generator of the synthetic images has seen of the real training split."""
    if not sets.manifest:
        return []
    notes = []
    tuned_on = shards.ledger(sets.manifest)[shards.GENERATOR]
    known = len(tuned_on & sets.train.hashes())
    if known:
        notes.append(
            f"the generator was tuned on {known} of the {len(sets.train)} real training images, whatever "
            "the arm's share of real images"
        )
    elif tuned_on:
        notes.append("the generator was tuned on other images than this set's")
    if not any(arguments["lora"] for arguments in sets.manifest["arguments"].values()):
        notes.append("the generator is the untuned base")
    unknown = sets.manifest.get("unknown_ledger")
    if unknown:
        notes.append(f"it is not known what the generator of {', '.join(unknown)} was tuned on: test images?")
    return notes
