"""`python -m finetune.losses`: check, measure, write."""

from collections.abc import Sequence
from dataclasses import asdict

from finetune.losses import measure
from finetune.losses.config import Losses
from finetune.losses.measure import PhotoLoss
from orchard import devices
from orchard.adapters import adapter, attaching
from orchard.adapters.adapter import Adapter
from orchard.adapters.provenance import Provenance
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.cli import cli
from orchard.cli.terminal import Terminal, say
from orchard.datasets import sources
from orchard.files import atomic
from orchard.images import splits
from orchard.images.images import TRAIN, ImageSet, Photo

LEDGER, SPLIT = "ledger", "training split"
"""What says which photos an adapter was trained on."""


def losses(config: Losses) -> dict[str, list[PhotoLoss]]:
    """Measure, and write ``--output``; file -> the losses of its photos. Nothing with ``dry_run``.

    Raises:
        UserError: whatever the user can mend.
    """
    config.require_valid()
    state = devices.processes()
    dtype = devices.torch_dtype(config.precision, state.device)
    adapters = [_read(name) for name in config.lora]
    base = _base(config, adapters)
    photos = sources.load(config.data)
    seen = {one.path: _photos(one, photos, config.data) for one in adapters}
    console = Terminal(quiet=not state.is_main_process)
    for one in adapters:
        members = sum(member for _, member in seen[one.path])
        said = f"{members} photos trained on (by the {_told_by(one)}), {len(seen[one.path]) - members} others"
        if away := len({*(_provenance(one).ledger or ())} - {photo.sha256 for photo, _ in seen[one.path]}):
            said += f", {away} more in the ledger that the set does not have"
        say(console, f"losses    {one.path.name}: {said}; {config.draws} draws each")
    if config.dry_run:
        return {}
    atomic.writable(config.output.parent)
    devices.quiet_libraries()
    pipe = bases.load(base, dtype, state.device)
    measured = {one.path: measure.of_adapter(config, base, pipe, one, seen[one.path]) for one in adapters}
    found = [
        {
            "file": one.path.name,
            "sha256": one.digest,
            "classes": _provenance(one).classes,
            "told_by": _told_by(one),
            "photos": [asdict(photo) for photo in measured[one.path]],
        }
        for one in adapters
    ]
    atomic.write_json(config.output, {"draws": config.draws, "seed": config.seed, "adapters": found})
    say(console, f"wrote {config.output}")
    return {str(path): rows for path, rows in measured.items()}


def _read(name: str) -> Adapter:
    path = adapter.find(name)
    cli.check(path.is_file(), f"--lora {name}: a whole pipeline; only adapters in a base can be measured")
    found = adapter.read(path)
    adapter.require_finite(found)
    cli.check(
        found.provenance is not None,
        f"--lora {name}: does not say what it was trained on; finetune writes files that do",
    )
    return found


def _provenance(one: Adapter) -> Provenance:
    assert one.provenance is not None, one.path
    return one.provenance


def _told_by(one: Adapter) -> str:
    return SPLIT if _provenance(one).ledger is None else LEDGER


def _base(config: Losses, adapters: Sequence[Adapter]) -> Base:
    """The one base of all adapters."""
    base = bases.resolve(config.base or _provenance(adapters[0]).base, inpainting=True)
    for one in adapters:
        adapter.require_fit(one, base)
        cli.check(
            _provenance(one).base_digest == base.digest,
            f"--lora {one.path.name}: was not trained on {base.name}; measure those of each base alone",
        )
        attaching.require_matching_layers(one, base)
    cli.check(
        not base.inpaints,
        f"--lora {adapters[0].path.name}: of a base that inpaints, whose loss hangs on masks as well",
    )
    return base


def _photos(one: Adapter, photos: ImageSet, data: str) -> list[tuple[Photo, bool]]:
    """The photos of its classes, and whether it was trained on them.

    Without a ledger, as in private adapters, they are those that its options draw from the training split.
    """
    said = _provenance(one)
    own = [photo for photo in photos.photos if photo.label in said.classes]
    ledger = _drawn(said, own) if said.ledger is None else frozenset(said.ledger)
    found = [(photo, photo.sha256 in ledger) for photo in own]
    for known, kind in ((True, "was trained on"), (False, "was not trained on")):
        cli.check(
            any(member == known for _, member in found),
            f"--data {data}: has no photo of its classes that {one.path.name} {kind}; give the set that it "
            "was trained on, test images and all",
        )
    return found


def _drawn(said: Provenance, own: Sequence[Photo]) -> frozenset[str]:
    """SHA-256 of the photos that finetune takes for these options, of this set."""
    train = [
        [photo for photo in own if photo.split == TRAIN and photo.label == name] for name in said.classes
    ]
    shots = int(said.options.get("shots", 0))
    chosen = [splits.subset(one, min(shots, len(one)) or len(one), "shots", said.seed) for one in train]
    return frozenset(photo.sha256 for of_class in chosen for photo in of_class)
