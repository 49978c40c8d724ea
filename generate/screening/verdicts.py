"""Verdicts on the images of a class between two rounds: near-duplicates, people's decisions, the choice."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from generate.screening import choice, near_hashes
from orchard import shards
from orchard.decisions import HUMAN
from orchard.files import storage
from orchard.shards import ShardHeader

Row = Mapping[str, Any]
"""``index``, ``reason``, ``score`` and what is measured of it."""
Verdict = dict[str, Any]
"""``reason``, empty for what is kept, and ``score``."""
BETWEEN = ("", "duplicate", HUMAN, shards.NOT_CHOSEN)
"""The reasons that are given here, or none; all others are found as an image is sampled."""


def phash(image: Image.Image) -> str:
    """16 hex digits that similar images share: signs of the lowest 8 x 8 frequencies of the picture."""
    import imagehash

    return str(imagehash.phash(image))


def numbers(hashes: Sequence[str]) -> np.ndarray:
    """(N,) uint64 of as many hashes."""
    return np.array([int(digits, 16) for digits in hashes], dtype=np.uint64)


def settle(folder: Path, headers: Iterable[ShardHeader]) -> None:
    """Judge the rows of each class, and finish moves that a stopped run began.

    Only for classes without a missing row: a verdict depends on all rows before it.
    """
    storage.remove(folder / shards.MANIFEST)
    for header in headers:
        there, twice = _rows(folder, header)
        verdicts = judged(header, there, turned_down(folder, header.label))
        new = (row["index"] for row in there if _verdict(row) != verdicts.get(row["index"], _verdict(row)))
        for number in sorted({index // header.arguments["shard_size"] for index in (*twice, *new)}):
            rows = shards.load(folder, header.label, number)
            # The rows stay what they were made with.
            shards.store(folder, number, applied(rows, verdicts), replace(header, made_with=[]))


def applied(rows: Iterable[Row], verdicts: Mapping[int, Verdict]) -> list[dict[str, Any]]:
    """The rows with the verdicts on them, where there are any."""
    return [{**row, **verdicts.get(row["index"], {})} for row in rows]


def turned_down(folder: Path, label: str) -> Set[int]:
    """The rows of a class that a person rejects."""
    return {row.index for row in shards.reviewed(folder, [label]) if row.is_rejected}


def judged(header: ShardHeader, there: Sequence[Row], by_hand: Set[int]) -> dict[int, Verdict]:
    """Index -> the verdict on each row of a class that no other screen rejects.

    By the rows beside it, then by a person, who rejects those in ``by_hand``: a near-duplicate of such a row
    does not come back in its place.
    """
    left = sorted((row for row in there if row["reason"] in BETWEEN), key=lambda row: row["index"])
    found: dict[int, Verdict] = {}
    if "duplicate" in header.arguments["screens"]:
        near = near_hashes.find(numbers([row["phash"] for row in left]))
        found = {left[n]["index"]: _rejected("duplicate", bits) for n, bits in near.items()}
        left = [row for n, row in enumerate(left) if n not in near]
    found |= {row["index"]: _rejected(HUMAN, None) for row in left if row["index"] in by_hand}
    left = [row for row in left if row["index"] not in by_hand]
    rule = _rule(header)
    return found | (_chosen(header, rule, there, left) if rule else {row["index"]: KEPT for row in left})


def _chosen(header: ShardHeader, rule: str, there: Sequence[Row], left: Sequence[Row]) -> dict[int, Verdict]:
    """One of each place whose candidates are all there; those of the others wait."""
    each = header.arguments["candidates"]
    sampled = Counter(row["index"] // each for row in there)
    places = [list(rows) for _, rows in itertools.groupby(left, key=lambda row: row["index"] // each)]
    whole = [rows for rows in places if sampled[rows[0]["index"] // each] == each]
    found = {row["index"]: _rejected(shards.NOT_CHOSEN, None) for row in left}
    for index, (keep, score) in choice.choose(rule, whole, header.arguments["seed"], header.label).items():
        found[index] = _rejected("" if keep else shards.NOT_CHOSEN, score)
    return found


def _rejected(reason: str, score: float | None) -> Verdict:
    return {"reason": reason, "score": None if score is None else float(np.float32(score))}


KEPT = _rejected("", None)


def _verdict(row: Row) -> Verdict:
    return {"reason": row["reason"], "score": row["score"]}


def _rule(header: ShardHeader) -> str:
    """The rule by which one candidate of each place is kept; empty where a place has one row."""
    return header.arguments.get(choice.KEEP, {}).get(choice.RULE, "")


def _rows(folder: Path, header: ShardHeader) -> tuple[list[Row], set[int]]:
    """The rows of a class without their images, and which stand in both splits; those count as rejected."""
    names = ["index", "reason", "score"]
    if "duplicate" in header.arguments["screens"]:
        names.append("phash")
    rule = _rule(header)
    names += choice.COLUMNS[rule] if rule else ()
    found: dict[int, Row] = {}
    twice: set[int] = set()
    for split in (shards.TRAIN, shards.REJECTED):
        for shard in shards.existing(folder, split):
            if shard.header.label == header.label:
                rows = {row["index"]: row for row in shards.columns(shard.path, *names).to_pylist()}
                twice |= found.keys() & rows.keys()
                found |= rows
    return list(found.values()), twice
