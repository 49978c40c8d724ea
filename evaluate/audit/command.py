"""`python -m evaluate.audit`: attack adapters by their losses, sets by their nearness, both by copies."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from evaluate.analysis.analyse import as_json
from evaluate.audit import attacks
from evaluate.audit.attacks import GAIN, LOSS, NEAREST, Attack
from evaluate.audit.config import Audit
from evaluate.experiment.child_process import call
from evaluate.gap import memorisation
from orchard import audits, shards
from orchard.adapters import adapter
from orchard.cli import cli
from orchard.cli.terminal import Terminal, say
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.files import atomic, checked_json, storage
from orchard.files.lock import exclusive
from orchard.images import splits, thumbnails
from orchard.images.images import TRAIN, ImageSet, Photo

LOSSES, DRAWN, LOG = "losses.json", "drawn", "log.txt"


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Near copies among synthetic images."""

    subject: str
    found: Mapping[str, Any]
    """As `memorisation.memorisation` has it, with members as training images and others as test images."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What was found."""

    attacks: Sequence[Attack]
    copies: Sequence[Copies]

    @property
    def said(self) -> list[str]:
        """In sentences."""
        lines = [attacks.sentence(one) for one in self.attacks]
        return lines + [f"{one.subject}: {memorisation.sentence(dict(one.found))}" for one in self.copies]


def audit(config: Audit) -> Audited | None:
    """Attack, write what was found beside what was attacked, and say it; None with ``dry_run``.

    Raises:
        UserError: whatever the user can mend, or a command failed.
    """
    config.require_valid()
    photos = sources.load(config.data)
    splits.require_split(photos)
    folder = storage.location(config.synthetic) if config.synthetic else None
    parted = _parted(config, photos, folder) if folder else {}
    console = Terminal()
    if config.lora:
        _say_plan(console, config)
    for label, one in parted.items():
        say(console, f"nearest   {label}: {len(one.members)} photos trained on, {len(one.others)} others")
    if config.dry_run:
        return None
    atomic.writable(config.output)
    with exclusive(config.output):
        found = Audited(
            attacks=[
                *(_by_loss(config) if config.lora else ()),
                *(_by_nearness(shards.read(folder), parted) if folder else ()),
            ],
            copies=[
                *([_copies(config, photos, _draw(config))] if config.lora and config.count else ()),
                *([_copies(config, photos, folder)] if folder else ()),
            ],
        )
        _write(console, config, found, folder)
    for line in found.said:
        say(console, line)
    return found


def _say_plan(console: Console, config: Audit) -> None:
    """What finetune will measure, or its refusal."""
    with tempfile.TemporaryDirectory() as aside:
        log = Path(aside) / LOG
        _call(log, "finetune.losses", *_losses_options(config), "--dry_run")
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith("losses "):  # not what libraries say on their own
            say(console, line)


@dataclass(frozen=True, kw_only=True)
class Parted:
    """Photos of one class: those that a generator was trained on, and others."""

    members: Sequence[Photo]
    others: Sequence[Photo]


def _parted(config: Audit, photos: ImageSet, folder: Path) -> dict[str, Parted]:
    """By the ledger of a set; where that is not known, or empty, the training split are the members."""
    manifest = shards.read_manifest(folder)
    ledger, found = frozenset(manifest["trained_on"]), {}
    for label in manifest["rows"]:
        known = ledger and label not in manifest["unknown_ledger"]
        own = [photo for photo in photos.photos if photo.label == label]
        members = [one for one in own if (one.sha256 in ledger if known else one.split == TRAIN)]
        kept = {one.sha256 for one in members}
        others = [one for one in own if one.sha256 not in kept]
        for kind, there in (("was made from", members), ("was not made from", others)):
            cli.check(
                bool(there),
                f"--data {config.data}: has no photo of class {label} that {folder} {kind}; give the set "
                "that it was made from, test images and all",
            )
        found[label] = Parted(members=members, others=others)
    return found


def _losses_options(config: Audit) -> list[object]:
    return [
        *("--lora", *config.lora, "--data", config.data, "--draws", config.draws, "--seed", config.seed),
        *("--precision", config.precision, "--output", config.output / LOSSES),
    ]


def _by_loss(config: Audit) -> list[Attack]:
    """Both attacks on each adapter, then their means."""
    _call(config.output / LOG, "finetune.losses", *_losses_options(config))
    found: dict[str, list[Attack]] = {LOSS: [], GAIN: []}
    for one in checked_json.parse(checked_json.read(config.output / LOSSES))["adapters"]:
        scores = {LOSS: lambda photo: -photo["adapted"], GAIN: lambda photo: photo["base"] - photo["adapted"]}
        for kind, score in scores.items():
            sides = [[score(p) for p in one["photos"] if p["member"] == member] for member in (True, False)]
            found[kind].append(attacks.attack(one["file"], kind, *sides))
    return [one for kind in found.values() for one in attacks.with_mean(kind)]


def _by_nearness(synthetic: ImageSet, parted: Mapping[str, Parted]) -> list[Attack]:
    """Class by class: are photos that were trained on nearer to a synthetic image than others are?"""
    found = []
    for label, one in parted.items():
        images = [photo for photo in synthetic.photos if photo.label == label]
        references = [thumbnails.References(framing) for framing in thumbnails.of_photos(images)]
        members, others = (
            -np.min(
                [each.nearest(of) for each, of in zip(references, thumbnails.of_photos(side), strict=True)],
                axis=0,
            )
            for side in (one.members, one.others)
        )
        found.append(attacks.attack(label, NEAREST, members.tolist(), others.tolist()))
    return attacks.with_mean(found)


def _draw(config: Audit) -> Path:
    """Images by the adapters' own prompts, as whoever has the adapters can draw them; nothing is screened."""
    folder = config.output / DRAWN
    options = ["--count", config.count, "--seed", config.seed, "--screens", "none", "--output", folder]
    where = ["--data", config.data, "--precision", config.precision]
    _call(config.output / LOG, "generate", "--lora", *config.lora, *where, *options)
    return folder


def _copies(config: Audit, photos: ImageSet, folder: Path) -> Copies:
    parted = _parted(config, photos, folder).values()
    members = photos.keep(photo for one in parted for photo in one.members)
    others = photos.keep(photo for one in parted for photo in one.others)
    return Copies(subject=folder.name, found=memorisation.measure(shards.read(folder), members, others))


def _write(console: Console, config: Audit, found: Audited, folder: Path | None) -> None:
    """The numbers into ``--output``, what they say also beside what was attacked, where cards quote it."""
    places: dict[Path, dict[str, str]] = {}
    for file in (adapter.find(name) for name in config.lora):
        places.setdefault(file.parent, {})[file.name] = atomic.file_hash(file)
    if folder and storage.is_local(folder):
        places.setdefault(folder, {})[audits.SHARDS] = audits.digest(shards.read_manifest(folder)["files"])
    numbers = {"said": found.said, **as_json(found), "arguments": cli.describe(config)}
    atomic.write_json(config.output / audits.FILE, numbers)
    for place, attacked in places.items():
        audits.write(place, attacked, found.said)
    say(console, f"wrote {', '.join(str(place / audits.FILE) for place in (config.output, *places))}")


def _call(log: Path, module: str, *options: object) -> None:
    """Run a command of ours to its end."""
    if code := call([module, *map(str, options)], log):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line.strip()][-1:]
        raise UserError(
            "".join(said).removeprefix("error: ") or f"{module} ended with code {code}; see {log}"
        )
