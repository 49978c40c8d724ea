"""The numbers as files: a row a run, a row an arm, and everything as JSON."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evaluate.analysis.analyse import Analysis, as_json
from evaluate.analysis.external_sets import columns
from evaluate.analysis.generators import Compared
from evaluate.analysis.labels import label
from evaluate.analysis.summary import Row
from evaluate.records.records import Record
from orchard.files.atomic import whole_file, write_json

RUNS, ARMS, ANALYSIS = "metrics.csv", "arms.csv", "analysis.json"
MEASURED = ("kid", "coverage", "share_near_train", "seconds_per_image", "seconds_to_train")
"""What `arms.csv` says of a generator's images."""


def write(records: Sequence[Record], analysis: Analysis, folder: Path) -> None:
    """`RUNS`, `ARMS` and `ANALYSIS` in ``folder``, each whole or not at all."""
    write_runs(records, folder / RUNS)
    compared = {one.arm: generator_values(one) for one in analysis.generators}
    own = [{"scored_on": "test", **arm_values(row), **compared.get(row.arm, {})} for row in analysis.rows]
    others = [
        {"scored_on": found.name, **arm_values(found.row), **columns(found)} for found in analysis.elsewhere
    ]
    _write_csv([*own, *others], folder / ARMS)
    write_json(folder / ANALYSIS, as_json(analysis))


def write_runs(records: Iterable[Record], path: Path) -> None:
    """One row a run with its scalar columns, ``macro_`` ones last; whole or not at all.

    Undefined is an empty cell. Lists and per-class values stay in ``records.jsonl``.
    """
    _write_csv([_flat(record) for record in records], path, last="macro_")


def arm_values(row: Row) -> dict[str, object]:
    """An arm as a row of numbers: what `evaluate.analysis.summary.Row` says, shares from 0 to 1."""
    values: dict[str, object] = {"label": label(row.arm), **as_json(row.arm)}
    values |= {name: getattr(row, name) for name in ("runs", "n_real", "n_synthetic", "n_test")}
    spreads = {**row.weighted, **{f"macro_{name}": value for name, value in row.macro.items()}}
    spreads |= {"nll": row.nll, "ece": row.ece}
    for name, value in spreads.items():
        values |= {f"{name}_mean": value.mean, f"{name}_sd": value.sd}
    values |= {"accuracy_low": row.interval[0], "accuracy_high": row.interval[1]}
    if row.change is None:
        return values
    change = as_json(row.change)
    low, high = change.pop("interval") or (None, None)
    values |= {"change_interval_low": low, "change_interval_high": high}
    return values | {f"change_{name}": value for name, value in change.items()}


def generator_values(found: Compared) -> dict[str, object]:
    """What the page says of an arm's generator beside others, of the comparison with the same real images."""
    values: dict[str, object] = dict(found.measured or {})
    values = {name: values.get(name) for name in MEASURED}
    if found.row.change is not None:
        low, high = found.row.change.interval or (None, None)
        names = ("points", "p_mean", "p_mean_holm")
        values |= {f"same_real_{name}": getattr(found.row.change, name) for name in names}
        values |= {"same_real_low": low, "same_real_high": high}
    return values


def _write_csv(rows: Sequence[Mapping[str, object]], path: Path, last: str = "\n") -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=lambda name: name.startswith(last))
    with whole_file(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _flat(record: Record) -> dict[str, object]:
    plain = {name: value for name, value in record.items() if isinstance(value, str | int | float | None)}
    return plain | {f"macro_{name}": value for name, value in record["macro"].items()}
