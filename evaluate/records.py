"""`records.jsonl`: one line a finished run, and what must be equal for a sweep to go on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.run import differences, write_json

RECORDS, EXPERIMENT = "records.jsonl", "experiment.json"

Key = tuple[str, float, int | None, int]
"""Design, share of real images, shots, seed."""


def key(record: Mapping[str, Any]) -> Key:
    """What tells one run from another within an experiment."""
    return record["design"], record["ratio"], record["shots"], record["seed"]


def read(folder: Path) -> list[dict[str, Any]]:
    """Finished runs in order; a last line cut off by a crash is dropped from the file.

    Raises:
        UserError: a line in the middle is damaged.
    """
    path = folder / RECORDS
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(
            f"{path}: damaged ({error}); remove the bad line or choose another --output"
        ) from None


def append(folder: Path, record: Mapping[str, Any]) -> None:
    """Add one finished run and see it to the disk."""
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def require_same(folder: Path, experiment: Mapping[str, Any]) -> None:
    """Note what this experiment is; raise `UserError` with the difference when another one is here."""
    path = folder / EXPERIMENT
    if not read(folder):
        write_json(path, experiment)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another --output") from None
    changes = differences(there, experiment)
    if changes:
        raise UserError(f"--output {folder}: holds another experiment: {changes}; choose another --output")
