"""What a shard's file has to hold before its rows are believed; it may have come from anywhere."""

from collections.abc import Sequence
from typing import Any

LARGEST = 8 * 2**30
"""Bytes of a shard's rows in memory: a few kilobytes of Parquet can stand for any number of equal rows.

generate plans no shard that could have more.
"""
AT_ONCE = 64
"""Rows that are unpacked before their size is looked at."""


def require_columns(schema: Any) -> None:
    """Raise `ValueError` unless a `pyarrow.Schema` has the columns that readers lean on, in their types."""
    import pyarrow as pa

    wanted = {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "label": pa.int64(),
        "index": pa.int32(),
        "prompt": pa.string(),
    }
    for name, kind in wanted.items():
        place = schema.get_field_index(name)
        if place < 0:
            raise ValueError(f"no column {name}")
        if schema.field(place).type != kind:
            raise ValueError(f"column {name} is of type {schema.field(place).type}, not {kind}")


def rows_within(file: Any, classes: Sequence[str], label: str) -> list[dict[str, Any]]:
    """The rows of a `pyarrow.parquet.ParquetFile`, all of class ``label``, as places in the list ``classes``.

    Raises:
        ValueError: more than memory is there for, or a row without an image, a number or this class.
    """
    size = 0
    rows: list[dict[str, Any]] = []
    for batch in file.iter_batches(batch_size=AT_ONCE):
        size += batch.nbytes
        if size > LARGEST:
            raise ValueError(f"its rows take more than {LARGEST} bytes")
        rows += batch.to_pylist()
    for place, row in enumerate(rows):
        if not row["image"] or row["image"]["bytes"] is None or row["index"] is None:
            raise ValueError(f"row {place} has no image")
        if row["label"] is None or not 0 <= row["label"] < len(classes):
            raise ValueError(f"row {place} has no class of its {len(classes)}")
        if classes[row["label"]] != label:
            raise ValueError(f"row {place} is of class {classes[row['label']]}, not {label}")
    return rows
