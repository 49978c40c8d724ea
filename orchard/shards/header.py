"""What all rows of one class have in common: the schema metadata of its shards."""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from orchard.errors import UserError, differences
from orchard.files import checked_json
from orchard.shards import ledgers
from orchard.shards.ledgers import Seen

SCHEMA, COLUMNS = 4, 2
"""The present form, and the first one with the present columns."""
KEY = b"orchard"
UNSAID: dict[str, Any] = {
    "screens": {},
    "keep": {},
    "candidates": 1,
    "compile": False,
    "safety_checker": True,
    "negative_prompt": "",
    "contrast": 0.0,
    "signed_by": "nobody",
}
"""Arguments that shards do not mention where they are these."""
VERDICTS = frozenset(("screens", "keep"))
"""Arguments that decide which rows are kept, and none of their pixels."""
OLD_ORDER = "diagonal"
"""The order of phrases in shards that name none."""


@dataclass(frozen=True, kw_only=True)
class ShardHeader:
    """How the rows of a class were made; rows of a class with different headers may not share a folder."""

    label: str
    classes: list[str]
    """The whole class list of the real set."""
    arguments: dict[str, Any]
    """Everything that decides the pixels of row k, whether it is kept, and who signs it."""
    trained_on: Seen | None
    """The real images that the generator has been tuned on; None when it is not known."""
    versions: dict[str, str]
    count: int
    """Images asked for; fewer rows than this mean that a run was stopped."""
    made_with: list[dict[str, str]] = field(default_factory=list)
    """Each set of library versions, device and memory savers that rows of this shard were sampled with. They
    change pixels by rounding, or by what a new version mends, and differ without anybody asking for it."""
    screened_with: Mapping[str, Seen] = field(default_factory=dict)
    """Screen -> the real images that it has seen."""
    schema: int = SCHEMA

    def encoded(self) -> bytes:
        """The header as schema metadata."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    def beside(self, folder: Path) -> "ShardHeader":
        """As the shards of a folder say it, in which the lists of real images are written by now.

        Raises:
            UserError: one that the header names is not there.
            WriteError: one cannot be written.
        """
        seen = None if self.trained_on is None else ledgers.put(folder, self.trained_on)
        screened = {screen: ledgers.put(folder, one) for screen, one in self.screened_with.items()}
        return replace(self, trained_on=seen, screened_with=screened, schema=SCHEMA)


@functools.lru_cache(maxsize=64)
def decoded(metadata: bytes) -> ShardHeader:
    """The header in schema metadata; equal ones, such as those of a class's shards, are one object."""
    found = checked_json.versioned(ShardHeader, metadata, SCHEMA)
    checked_json.require_distinct(found.classes)
    ledgers.require_named(ledgers.of(found))
    if found.label not in found.classes:
        raise ValueError(f"its label {found.label!r} is not among its classes")
    return found


def require_same(header: ShardHeader, wanted: ShardHeader, folder: Path) -> None:
    """Raise `UserError` with the difference when rows of the two may not stand in one folder."""
    if header.classes != wanted.classes:
        raise UserError(
            f"--output {folder}: its class list is {', '.join(header.classes)}, not "
            f"{', '.join(wanted.classes)}; choose another --output"
        )
    if header.schema < COLUMNS:
        raise UserError(
            f"--output {folder}: an older version wrote it, with other columns; choose another --output"
        )
    if header.label != wanted.label:
        return
    # Older shards do not say the scale; the LoRA's hash stands for it.
    older = {"lora_scale": wanted.arguments.get("lora_scale")}
    if "phrase_order" in wanted.arguments:
        older["phrase_order"] = OLD_ORDER
    there, asked = UNSAID | older | header.arguments, UNSAID | wanted.arguments
    if there.get("base_digest") == asked.get("base_digest"):
        # One base has several names: where it lies, or a public one.
        there["base"] = asked.get("base")
    changes = differences(there, asked)
    apart = {key for key in there.keys() | asked.keys() if there.get(key) != asked.get(key)}
    if changes:
        again = ", or run --rescreen with them first" if apart <= VERDICTS else ""
        raise UserError(
            f"--output {folder}: {wanted.label} is there with {changes}; choose another --output, or the "
            f"arguments (and the version) that it was made with{again}"
        )
