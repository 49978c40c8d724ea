"""`python -m review`: gather the images, look at them, then serve the page until Ctrl-C."""

import contextlib
import functools
import getpass
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from orchard import decisions
from orchard.cli.terminal import Terminal, bar, say
from orchard.datasets import sources
from orchard.errors import UserError, listed
from orchard.files import atomic, lock
from orchard.images import thumbnails
from orchard.images.images import TRAIN, ImageSet
from orchard.images.splits import ranked
from review import items
from review.config import Review
from review.items import Item, of_photo
from review.server import Server
from review.session import Session

NONE = "none"
"""As ``--data``: no real photos."""
MOST_BESIDE = 200
"""Training photos of a class that are shown beside its synthetic images."""
FINDINGS = {
    "damaged": "cannot be read",
    "mislabel": "possible mislabel",
    "copy in class": "copy in another class",
    "copy in split": "copy in another split",
    "copy": "near-duplicate",
    "blurred": "blurred",
    "dark": "dark",
    "size": "odd size",
}
"""Kind of a finding -> what the page calls it."""


def review(config: Review) -> dict[str, str]:
    """Serve the page until Ctrl-C; the verdicts by the name of the image.

    Raises:
        UserError: whatever the user can mend.
    """
    config.require_valid()
    console = Terminal()
    with contextlib.ExitStack() as stack:
        session = _synthetic(config, stack) if config.synthetic else _real(console, config)
        _describe(console, session)
        if not config.dry_run:
            _serve(console, session, config)
            say(console, f"decided   {_counts(session)}")
    decided = session.decided().items()
    verdicts: dict[str, str] = {session.items[n].name: one.verdict for n, one in decided if one.verdict}
    rejected = [name for name, verdict in verdicts.items() if verdict == "reject"]
    if rejected and config.synthetic:
        say(console, "next: the command that sampled the set, which replaces what is rejected")
    for name in () if config.synthetic else rejected:
        say(console, f"rejected  {name}")
    return verdicts


def _serve(console: Console, session: Session, config: Review) -> None:
    with Server(session, config.port) as server:
        say(console, f"open {server.address}")
        say(console, "each decision is on disk as it is made; Ctrl-C ends")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _reviewer(config: Review) -> str:
    try:
        return config.reviewer or getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        raise UserError("--reviewer: this user has no name; give one") from None


def _synthetic(config: Review, stack: contextlib.ExitStack) -> Session:
    """A synthetic set, which no run may change meanwhile, beside training photos."""
    folder = Path(config.synthetic).expanduser()
    if not folder.is_dir():
        raise UserError(f"--synthetic {folder}: no such folder; python -m generate writes one")
    stack.enter_context(lock.reading(folder, "--synthetic"))
    found = items.of_shards(folder)
    photos = _photos(config, {item.label for item in found})
    beside = [of_photo(photo) for photo in photos.photos] if photos else []
    path = folder / decisions.FILE
    session = Session(
        path,
        _reviewer(config),
        found,
        beside,
        nearest=_Nearest(photos, len(found)) if photos else lambda item: (),
        facts={"title": str(folder), "kind": "synthetic", "measures": items.MEASURES, "findings": {}},
    )
    if not config.dry_run:
        atomic.writable(folder, "--synthetic")
        _note_shown(session, beside)
    return session


def _note_shown(session: Session, beside: Sequence[Item]) -> None:
    """Photos that a reviewer could see have had a part in the set: evaluate does not score them."""
    if not {item.sha256 for item in beside} <= decisions.shown(decisions.read(session.path)):
        decisions.act(session.path, "shown", dict(item.key for item in beside), session.reviewer)


def _photos(config: Review, labels: Iterable[str]) -> ImageSet | None:
    """Training photos of these classes: the test split is kept from whoever decides what trains."""
    if config.data == NONE:
        return None
    train = sources.load(config.data).of(TRAIN)
    wanted = sorted(set(labels) & set(train.classes))
    if not wanted:
        raise UserError(
            f"--data {config.data}: has no class of --synthetic {config.synthetic}; name the set that its "
            f"adapters were trained on, or {NONE}"
        )
    return train.keep(
        photo
        for label in wanted
        for photo in ranked((one for one in train.photos if one.label == label), "review")[:MOST_BESIDE]
    )


class _Nearest:
    """The training photo of its class that is most like an image."""

    def __init__(self, photos: ImageSet, first: int) -> None:
        self.photos, self.first = photos, first
        self._of = functools.cache(self._references)

    def _references(self, label: str) -> tuple[list[int], thumbnails.References]:
        places = [n for n, photo in enumerate(self.photos.photos) if photo.label == label]
        small, _ = thumbnails.of_photos([self.photos.photos[n] for n in places])
        return places, thumbnails.References(small)

    def __call__(self, item: Item) -> Iterator[tuple[int, str]]:
        if item.label not in self.photos.counts() or not self.photos.counts()[item.label]:
            return
        places, references = self._of(item.label)
        small, _ = thumbnails.of_image(items.picture(item))
        (place,), (distance,) = references.closest(small)
        yield self.first + places[place], f"nearest training photo, distance {distance:.2f}"


def _real(console: Console, config: Review) -> Session:
    """A real set with what is odd about its photos."""
    from review import checks, mislabels  # which a synthetic set need not wait for

    images = sources.load(config.data)
    for note in images.notes:
        say(console, f"note      {note}")
    features = mislabels.of_backbone(config.backbone) if config.backbone else mislabels.colours_and_edges
    with bar("looking", len(images), unit="photos") as advance:
        found = checks.examine(images, features, advance)
    if not any("margin" in item.measures for item in found.items):
        say(console, "note      mislabels are not looked for: a class has fewer than two photos that differ")
    path = Path(f"{atomic.file_name(Path(config.data).name)}.{decisions.FILE}")
    facts: dict[str, Any] = {"title": images.name, "kind": "real"}
    facts |= {"measures": checks.MEASURES, "findings": FINDINGS}
    session = Session(path, _reviewer(config), found.items, facts=facts)
    session.thumbnails.update(found.thumbnails)
    return session


def _describe(console: Console, session: Session) -> None:
    counts = Counter(item.label for item in session.items)
    say(console, f"images    {', '.join(f'{label} {count}' for label, count in counts.items())}")
    if beside := len(session.pictures) - len(session.items):
        say(console, f"beside    {beside} training photos")
    for kind, title in FINDINGS.items():
        names = [item.name for item in session.items if any(one.kind == kind for one in item.findings)]
        if names:
            say(console, f"{title}: {len(names)}, {listed(names)}")
    say(console, f"decided   {_counts(session)}, by {session.reviewer} in {session.path}")


def _counts(session: Session) -> str:
    said = Counter(one.verdict for one in session.decided().values())
    kept, rejected = said["keep"], said["reject"]
    return f"{kept + rejected} of {len(session.items)}: {kept} kept, {rejected} rejected"
