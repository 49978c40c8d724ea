"""``--rescreen``: other screens, or another choice, for the images that are there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from generate.config import Generate
from generate.outputs.credentials import SIGNED_BY, holder, signer
from generate.screening import choice, screens, verdicts
from generate.screening.screens import ScreenPlan, Screens
from orchard import shards
from orchard.cli.terminal import bar, say
from orchard.errors import UserError
from orchard.files import storage
from orchard.images.images import decode
from orchard.shards import Shard, ShardHeader

ALWAYS = ("contrast", "phash")
"""Columns that depend on the image alone."""


@dataclass(frozen=True, kw_only=True)
class Class:
    """The images of one class that are there."""

    header: ShardHeader
    """With the new screens in it."""
    kept: int
    rejected: int
    before: dict[int, dict[str, Any]]
    """Number of a shard -> column -> what its values were made of."""


def plan(config: Generate, folder: Path) -> tuple[ScreenPlan, list[Class]]:
    """What is to be judged anew; nothing is decoded, loaded or written.

    Raises:
        UserError: there are no images, not of a class that is asked for, or there is nothing to choose from.
    """
    by_label: dict[str, list[Shard]] = {}
    for shard in (*shards.existing(folder), *shards.existing(folder, shards.REJECTED)):
        by_label.setdefault(shard.header.label, []).append(shard)
    if not by_label:
        raise UserError(f"--rescreen: {folder} has no images; generate some first")
    if missing := sorted(set(config.classes) - by_label.keys()):
        raise UserError(f"--classes {' '.join(missing)}: {folder} has {', '.join(by_label)}")
    labels = [label for label in by_label if label in (config.classes or by_label)]
    headers = [by_label[label][0].header for label in labels]
    for label, header in zip(labels, headers, strict=True):
        for shard in by_label[label]:
            shards.require_same([shard], shard.header, folder)  # as for its form alone
        _require_choice(config, header)
        _require_signer(config, header)
    screened = screens.plan(config, labels, min(header.arguments["resolution"] for header in headers))
    return screened, [_class(screened, by_label[label]) for label in labels]


def _require_choice(config: Generate, header: ShardHeader) -> None:
    candidates = header.arguments.get("candidates", 1)
    if candidates == 1 and config.keep is not None:
        raise UserError(f"--keep {config.keep}: {header.label} has no --candidates; leave it out")
    if candidates > 1 and config.keep is None:
        raise UserError(f"--rescreen: {header.label} has {candidates} candidates an image; give --keep RULE")


def _require_signer(config: Generate, header: ShardHeader) -> None:
    there, given = header.arguments.get(SIGNED_BY, ""), holder(signer(config.sign))
    if there != given:
        raise UserError(
            f"--rescreen: {header.label} is signed by {there or 'nobody'}, not by {given or 'nobody'}; "
            + ("give the --sign that it was sampled with" if there else "leave out --sign")
        )


def _class(screened: ScreenPlan, found: Sequence[Shard]) -> Class:
    away = sum(shard.rows for shard in found if shard.path.name.startswith(shards.REJECTED))
    numbers = sorted({shard.number for shard in found})
    return Class(
        header=screened.marked(found[0].header),
        kept=sum(shard.rows for shard in found) - away,
        rejected=away,
        before={number: _made_of([one for one in found if one.number == number]) for number in numbers},
    )


def _made_of(both: Sequence[Shard]) -> dict[str, Any]:
    """What the columns were made of; nothing where a stopped run left the two files of a shard at odds."""
    first, *rest = (screens.made_of(shard.header.arguments) for shard in both)
    return first if all(one == first for one in rest) else {}


def describe(console: Console, screened: ScreenPlan, classes: Sequence[Class]) -> None:
    """What is there, and by what it will be judged."""
    for one in classes:
        there = f"{one.kept} images kept and {one.rejected} rejected are there"
        say(console, f"class     {one.header.label}: {there}")
    say(console, f"screens   {', '.join(screened.names) or 'none'}; nothing is sampled")
    if screened.choice:
        say(console, f"keep      of all candidates of an image {choice.SAID[screened.choice.rule]}")


def rescreen(
    console: Console, config: Generate, folder: Path, screened: ScreenPlan, classes: Sequence[Class]
) -> None:
    """Judge the images anew and move the rows whose verdict is another one.

    A class then counts as complete with what is kept of it.

    Raises:
        UserError: nothing would be kept of a class; nothing is written then.
    """
    judge = Screens(config, screened)
    total = sum(len(one.before) for one in classes)
    with bar("screening", total, unit="shards") as advance:
        found = []
        for one in classes:
            measured: dict[int, dict[str, Any]] = {}
            for number in one.before:
                measured |= _measured(folder, one, number, judge)
                advance(1)
            by_hand = verdicts.turned_down(folder, one.header.label)
            judged = verdicts.judged(one.header, list(measured.values()), by_hand)
            found.append((one, {row["index"]: row for row in verdicts.applied(measured.values(), judged)}))
    kept = {one.header.label: sum(not row["reason"] for row in rows.values()) for one, rows in found}
    if nothing := [label for label, number in kept.items() if not number]:
        raise UserError(f"--rescreen: of class {nothing[0]} nothing would be kept; give other --screens")
    storage.remove(folder / shards.MANIFEST)
    for one, judged_rows in found:
        label = one.header.label
        for number in one.before:
            rows = verdicts.applied(shards.load(folder, label, number), judged_rows)
            shards.store(folder, number, rows, replace(one.header, count=kept[label], made_with=[]))
        say(
            console,
            f"class     {label}: keeps {kept[label]} of {len(judged_rows)}, kept {one.kept} before",
        )


def _measured(folder: Path, one: Class, number: int, judge: Screens) -> dict[int, dict[str, Any]]:
    """Index of a row -> its columns; what is not known of an image is measured."""
    wanted, before = screens.made_of(one.header.arguments), one.before[number]
    known = {name for name in judge.measures if name in ALWAYS or before.get(name) == wanted.get(name)}
    found = {}
    for row in shards.load(folder, one.header.label, number):
        columns = {
            name: row.get(name) if name in known or name in ALWAYS else None for name in screens.MEASURED
        }
        if row["reason"] in shards.NO_IMAGE:  # whatever the screens say of the black one in its place
            found[row["index"]] = {"index": row["index"], **columns, "reason": row["reason"], "score": None}
            continue
        if missing := [name for name in judge.measures if columns[name] is None]:
            image = decode(row["image"]["bytes"], row["image"]["path"])
            columns |= judge.measured(image, one.header.label, row["prompt"], missing)
        found[row["index"]] = {"index": row["index"], **columns, **judge.verdict(columns)}
    return found
