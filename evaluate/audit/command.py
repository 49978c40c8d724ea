"""`python -m evaluate.audit`: attack adapters by their losses, sets by their nearness, both by copies."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from evaluate.analysis.analyse import as_json
from evaluate.audit import by_loss, by_nearness
from evaluate.audit.attacks import Attack, sentence
from evaluate.audit.config import Audit
from evaluate.experiment.child_process import call
from evaluate.gap import memorisation
from orchard import audits, cards, shards, software
from orchard.adapters import adapter
from orchard.cli import cli
from orchard.cli.terminal import Terminal, say
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.files import atomic, checked_json, storage
from orchard.files.lock import exclusive
from orchard.images import splits
from orchard.images.images import TEST, TRAIN, ImageSet, sha256

NUMBERS, LOSSES, DRAWN, LOG = "audit.json", "losses.json", "drawn", "log.txt"


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What was found of one adapter, of adapters together, or of a set."""

    digest: str
    """Its SHA-256; of several, `orchard.audits.together`."""
    attacks: Sequence[Attack] = ()
    findings: Sequence[audits.Finding] = ()
    """The same as what is noted, with copies among its images or among what was drawn from it."""

    @property
    def said(self) -> list[str]:
        """All of it in sentences."""
        return [one["said"] for one in self.findings]


def audit(config: Audit) -> list[Audited]:
    """Attack, write what was found and put it into the cards of what was attacked; nothing with ``dry_run``.

    Raises:
        UserError: whatever the user can mend, or a command failed.
    """
    config.require_valid()
    photos = sources.load(config.data)
    splits.require_split(photos)
    adapters = _digests(config)
    folder = storage.location(config.synthetic) if config.synthetic else None
    places = _places(adapters, folder)
    parts = by_nearness.parted(photos, shards.read_manifest(folder), config) if folder else {}
    console = Terminal()
    for note in photos.notes:
        say(console, f"note      {note}")
    work = config.output / _key(config, adapters.values(), photos)
    if config.lora:
        _plan(console, config, work)
    for label, one in parts.items():
        say(console, f"nearest   {label}: {one.described}")
    say(console, f"output    {config.output}")
    if config.dry_run:
        return []
    for place in (config.output, *places):
        atomic.writable(place)
    _earlier(config.output / NUMBERS)  # what cannot be read is told before the work
    for place, there in places.items():
        audits.quoted(place, there)
    with exclusive(config.output):
        found = _adapters(config, photos, work, console) if config.lora else []
        if folder:
            found.append(_set(config, photos, folder, parts))
        _keep(config, found)
        findings: dict[str, list[audits.Finding]] = {}
        for subject in found:  # a single adapter is all of those that are attacked together
            findings.setdefault(subject.digest, []).extend(subject.findings)
        stayed = {line for place, there in places.items() for line in audits.write(place, findings, there)}
    for line in (line for one in found for line in one.said):
        say(console, line)
    for line in sorted(stayed):
        say(console, f"note      stays noted, since it was tried harder: {line}")
    say(console, f"wrote {config.output / NUMBERS}, and {audits.FILE} in {', '.join(map(str, places))}")
    return found


def _earlier(path: Path) -> list[dict[str, Any]]:
    """What other audits found."""
    try:
        return list(checked_json.parse(checked_json.read(path))["found"]) if path.is_file() else []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it") from None


def _keep(config: Audit, found: Sequence[Audited]) -> None:
    """Put what was found into `NUMBERS`, beside what other audits found; one done again takes its place."""
    path, arguments = config.output / NUMBERS, cli.describe(config)
    earlier = _earlier(path)
    new = [as_json(one) | {"arguments": arguments} for one in found]
    again = [(one["digest"], one["arguments"]) for one in new]
    kept = [one for one in earlier if (one.get("digest"), one.get("arguments")) not in again]
    atomic.write_json(path, {"found": [*kept, *new]})


def _findings(attacks: Sequence[Attack], effort: int, by: str) -> list[audits.Finding]:
    return [
        {"attack": f"{one.subject}, {one.kind}", "effort": effort, "said": f"{sentence(one)} ({by})"}
        for one in attacks
    ]


def _digests(config: Audit) -> dict[Path, str]:
    """The adapters' files and their SHA-256."""
    found: dict[Path, str] = {}
    for path in map(adapter.find, config.lora):
        if path.is_file():  # finetune refuses others
            digest = atomic.file_hash(path)
            same = next((other for other, known in found.items() if known == digest), None)
            cli.check(same is None, f"--lora {path}: the same as {same}; give it once")
            found[path] = digest
    return found


def _places(adapters: Mapping[Path, str], folder: Path | None) -> dict[Path, set[str]]:
    """The folders of what is attacked, and the SHA-256 of what lies there; none for a set behind a URL."""
    found: dict[Path, set[str]] = {}
    for path, digest in adapters.items():
        found.setdefault(path.parent, set()).add(digest)
    if folder and storage.is_local(folder):
        found.setdefault(folder, set()).update(audits.of_set(shards.read_manifest(folder)))
    return found


def _key(config: Audit, adapters: Iterable[str], photos: ImageSet) -> str:
    """A name for what losses and drawn images depend on, so that another audit does not find them."""
    options = [config.base, config.data, config.draws, config.seed, config.precision, software.versions()]
    seen = sorted((photo.sha256, photo.label, photo.split) for photo in photos.photos)
    return sha256(json.dumps([sorted(adapters), *options, seen]).encode())[:12]


def _plan(console: Console, config: Audit, work: Path) -> None:
    """What finetune will measure; or its refusal, or that of generate."""
    with tempfile.TemporaryDirectory() as aside:
        log = Path(aside) / LOG
        _call(log, *_losses(config, work), "--dry_run")
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if config.count:
            _call(log, *_drawing(config, work), "--dry_run")
    for line in lines:
        if line.startswith("losses "):  # not what libraries say on their own
            say(console, line)


def _losses(config: Audit, work: Path) -> list[object]:
    """The command that measures losses."""
    options = ["--data", config.data, "--draws", config.draws, "--seed", config.seed]
    base = ["--base", config.base] if config.base else []
    where = ["--precision", config.precision, "--output", work / LOSSES]
    return ["finetune.losses", "--lora", *config.lora, *base, *options, *where]


def _drawing(config: Audit, work: Path) -> list[object]:
    """The command that draws images by the adapters' own prompts, as anybody can who has them; unscreened."""
    options = ["--count", config.count, "--seed", config.seed, "--screens", "none"]
    base = ["--base", config.base] if config.base else []
    where = ["--data", config.data, "--precision", config.precision, "--output", work / DRAWN]
    return ["generate", "--lora", *config.lora, *base, *where, *options]


def _adapters(config: Audit, photos: ImageSet, work: Path, console: Console) -> list[Audited]:
    """The attacks on each adapter, their means, and copies among what all of them draw.

    What an audit that was stopped has measured and drawn is not done again.
    """
    atomic.writable(work)
    say(console, f"measuring the losses, then drawing images; progress is in {work / LOG}")
    if not (work / LOSSES).is_file():
        _call(work / LOG, *_losses(config, work))
    measured = checked_json.parse(checked_json.read(work / LOSSES))["adapters"]
    by = f"{config.draws} draws a photo of {cards.public(config.data)}"
    each = [(one["sha256"], by_loss.of_adapter(one)) for one in measured]
    several = (audits.together(one["sha256"] for one in measured), by_loss.means(measured))
    found = [
        Audited(digest=digest, attacks=attacks, findings=_findings(attacks, config.draws, by))
        for digest, attacks in (*each, several)
    ]
    if config.count:
        _call(work / LOG, *_drawing(config, work))
        copies = _copies(config, photos, work / DRAWN, "drawn from the adapters")
        found[-1] = replace(found[-1], findings=[*found[-1].findings, copies])
    return found


def _set(config: Audit, photos: ImageSet, folder: Path, parts: Mapping[str, by_nearness.Parted]) -> Audited:
    """The attacks on each class of a set, and copies in it."""
    attacks = by_nearness.attack(shards.read(folder), parts)
    effort = sum(len(one.members) + len(one.others) for one in parts.values())
    found = _findings(attacks, effort, f"photos of {cards.public(config.data)}")
    copies = _copies(config, photos, folder, "the set")
    digest = audits.digest(shards.read_manifest(folder)["files"])
    return Audited(digest=digest, attacks=attacks, findings=[*found, copies])


def _copies(config: Audit, photos: ImageSet, folder: Path, what: str) -> audits.Finding:
    """How many images of a set are near copies."""
    synthetic = shards.read(folder)
    labels = {photo.label for photo in synthetic.photos}
    kept = photos.keep(photo for photo in photos.photos if photo.label in labels)
    found = memorisation.measure(synthetic, kept.of(TRAIN), kept.of(TEST))
    said = f"{what}: {memorisation.sentence(found)} (photos of {cards.public(config.data)})"
    return {"attack": f"{what}, copies", "effort": len(synthetic) * len(kept), "said": said}


def _call(log: Path, module: object, *options: object) -> None:
    """Run a command of ours to its end."""
    if code := call([str(module), *map(str, options)], log):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "".join([line for line in lines if line.strip()][-1:]).removeprefix("error: ")
        raise UserError(said or f"{module} ended with code {code}; see {log}")
