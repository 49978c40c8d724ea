"""The image sets of an experiment, checked against each other before any pixel is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from classify.sizes import Sizes, native, resolve
from evaluate.config import Evaluate
from evaluate.experiment import leaks
from evaluate.generators import GENERATORS, GIVEN
from orchard import shards
from orchard.bases import bases
from orchard.classifiers.classifier import seen_by
from orchard.cli import cli
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.files import storage
from orchard.generators.files import SIZES
from orchard.images import splits
from orchard.images.images import TEST, TRAIN, ImageSet, Photo

OWN = {
    "shots": "every arm's generator has seen that arm's real images alone",
    "fold": "every fold's generator has seen its real training images alone, whatever an arm's share",
    "ratio": "every generator has seen the real training images alone, whatever an arm's share",
}
"""What the generators that evaluate makes have seen, by the kind of the arms."""


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The image sets, the manifest of the synthetic one, and the size they are brought to."""

    train: ImageSet
    test: ImageSet
    synthetic: ImageSet
    """Empty where the arms need no given synthetic images."""
    unscreened: Mapping[str, ImageSet]
    """Screen -> the synthetic set as it would be without it; those that rejected an image, for a control."""
    external: Mapping[str, ImageSet]
    """Further real sets by name, with the class list of ``train``; a class may have no image there."""
    manifest: shards.Manifest | None
    """Of the synthetic set."""
    base: bases.Base | None
    """Of the arms' own generators, where they bring some."""
    sizes: Sizes
    sized_by: str = ""
    """What the size was taken from."""

    def photos(self) -> list[Photo]:
        """Every image that is there before the experiment begins."""
        others = (*self.unscreened.values(), *self.external.values())
        given = (self.train, self.test, self.synthetic, *others)
        return [photo for images in given for photo in images.photos]


def load(config: Evaluate, shares: Sequence[float]) -> Sets:
    """Load and check the sets; no pixels yet.

    Raises:
        UserError: a set is missing or short, classes differ, or a test image was seen by a generator, a
            screen, pretrained weights, or stands in a training pool.
    """
    real = sources.load(config.data)
    splits.require_split(real)
    train, test = real.of(TRAIN), real.of(TEST)
    cli.check(len(test) > 0, f"--data {config.data}: no test images in it")
    splits.require_apart(f"--data {config.data}", real)
    external = {name: _external(name, train) for name in config.external}
    scored = _scored(config, real, external)
    manifest = None
    synthetic = train.keep(())
    unscreened: dict[str, ImageSet] = {}
    if GIVEN in config.arms_by and set(shares) != {1.0}:
        folder = storage.location(config.synthetic)
        manifest = shards.read_manifest(folder)
        synthetic = _synthetic(f"--synthetic {config.synthetic}", folder, config, train, scored)
        if "screens" in config.controls:
            unscreened = _unscreened(folder, manifest, scored)
    base = bases.resolve(config.base) if config.brings_base else None
    if base is not None:
        _require_models(config, base)
    side, sized_by = _side(config, train, synthetic, base)
    return Sets(
        train=train,
        test=test,
        synthetic=synthetic,
        unscreened=unscreened,
        external=external,
        manifest=manifest,
        base=base,
        sizes=resolve(config.size, side),
        sized_by="--size" if config.size else sized_by,
    )


def _scored(config: Evaluate, real: ImageSet, external: Mapping[str, ImageSet]) -> leaks.Scored:
    """What no generator, screen or weights may have seen, checked against the weights and the real images."""
    elsewhere = {f"--external {name}": images for name, images in external.items()}
    scored = {f"--data {config.data}": real.of(TEST), **elsewhere}
    # An arm with photos of its own knows these alone, so nothing else may know more.
    barred = {**scored, f"--data {config.data}": real} if config.own_photos else scored
    leaks.require_unseen(f"--pretrained {config.pretrained}", seen_by(config.pretrained), barred)
    learned = real if config.folds else real.of(TRAIN)
    leaks.require_unseen(f"--data {config.data}: training", learned.hashes(), elsewhere)
    return scored


def _side(config: Evaluate, train: ImageSet, synthetic: ImageSet, base: bases.Base | None) -> tuple[int, str]:
    """The side of the images in pixels, and what it was taken from: never from which arms are asked for.

    Raises:
        UserError: the given images have another size than those that the base makes beside them.
    """
    if base is not None:
        there = native(synthetic.photos) if len(synthetic) else base.resolution
        cli.check(
            there == base.resolution,
            f"--generators: images of {there} px in --synthetic {config.synthetic}, but the base {base.name} "
            f"makes {base.resolution} px; give the --base that made them",
        )
        return base.resolution, f"the images of the base {base.name}"
    given = synthetic if len(synthetic) else _beside(config, train)
    if len(given):
        return native(given.photos), f"the images in {given.name}"
    return native(train.photos), f"the photos; no set of their classes lies in {config.synthetic}"


def _require_models(config: Evaluate, base: bases.Base) -> None:
    """Raise `UserError` where a GAN or VAE does not have the size of the base's images."""
    model = next((name for name in config.makers if name in GENERATORS and GENERATORS[name].model), None)
    cli.check(
        model is None or base.resolution in SIZES,
        f"--generators {model}: has {', '.join(map(str, SIZES))} px and the base {base.name} "
        f"{base.resolution} px; an experiment has one size, so give another --base, such as mini",
    )


def _beside(config: Evaluate, train: ImageSet) -> ImageSet:
    """The set in ``--synthetic``, though no arm takes its images; empty unless it has the real classes."""
    folder = storage.location(config.synthetic)
    if not (folder / shards.MANIFEST).is_file():
        return train.keep(())
    found = shards.read(folder)
    return found if found.classes == train.classes else train.keep(())


def _synthetic(who: str, folder: Path, config: Evaluate, train: ImageSet, scored: leaks.Scored) -> ImageSet:
    """The set in ``folder``, which has the real set's classes and has not seen what is scored."""
    found = shards.read(folder)
    if found.classes != train.classes:
        raise UserError(
            f"{who}: classes {', '.join(found.classes)}, but --data {config.data} has "
            f"{', '.join(train.classes)}; generate from adapters of this set"
        )
    leaks.require_honest(who, shards.read_manifest(folder), found, scored)
    return found


def _unscreened(folder: Path, manifest: shards.Manifest, scored: leaks.Scored) -> dict[str, ImageSet]:
    screens = shards.rejections(manifest)
    chosen = any(arguments.get("candidates", 1) > 1 for arguments in manifest["arguments"].values())
    cli.check(
        not chosen,
        f"--controls screens: {folder} has the chosen ones of several candidates, and what a screen would "
        "have let through might have been chosen instead; give a set without --candidates",
    )
    cli.check(
        bool(screens),
        f"--controls screens: no screen rejected an image of {folder}, so none would have changed the set; "
        "leave it out, or generate with more of --screens",
    )
    found = {screen: shards.read_unscreened(folder, screen) for screen in screens}
    for screen, images in found.items():
        leaks.require_honest(f"{folder} without screen {screen}", manifest, images, scored)
    return found


def _external(name: str, train: ImageSet) -> ImageSet:
    """All images of a further real set, labelled by the class list of ``train``, by name."""
    found = sources.load(name, option="--external")
    unknown = sorted({photo.label for photo in found.photos} - set(train.classes))
    if unknown:
        raise UserError(
            f"--external {name}: class {', '.join(unknown)} is not in the real set, which has "
            f"{', '.join(train.classes)}; remove it from the external set"
        )
    return replace(found, classes=train.classes)


def generator_notes(config: Evaluate, sets: Sets) -> list[str]:
    """What the generators of the synthetic images have seen of the real images."""
    kind = "shots" if config.shots else "fold" if config.folds else "ratio"
    notes = [f"{OWN[kind]} (base {sets.base.name})"] if sets.base is not None else []
    if not sets.manifest:
        return notes
    tuned_on = shards.ledger(sets.manifest)[shards.GENERATOR]
    known = len(tuned_on & sets.train.hashes())
    if known:
        notes.append(
            f"the generator was tuned on {known} of the {len(sets.train)} real training images, whatever "
            "the arm's share of real images"
        )
    elif tuned_on:
        notes.append("the generator was tuned on other images than this set's")
    if not any(arguments.get("lora") for arguments in sets.manifest["arguments"].values()):
        notes.append("the generator is the untuned base")
    if unknown := sets.manifest["unknown_ledger"]:
        notes.append(f"it is not known what the generator of {', '.join(unknown)} was tuned on: test images?")
    return notes
