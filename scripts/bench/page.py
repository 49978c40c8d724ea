"""`docs/log/benchmarks.md`: what each run of the benchmarks found, on which machine, with which versions."""

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from orchard import software
from orchard.files import atomic

HEAD = """# Benchmarks

Every part is one run of `python scripts/benchmark.py`, the newest last. Machines differ and are rarely quiet:
compare the ratios, which are of one run each.
"""


def append(path: Path, command: str, tables: Sequence[Table]) -> None:
    """Add a part with the machine, the versions and the ``tables``, whole or not at all."""
    there = path.read_text(encoding="utf-8") if path.is_file() else HEAD
    day = datetime.datetime.now(tz=datetime.UTC).date()
    versions = ", ".join(f"{name} {version}" for name, version in sorted(software.versions().items()))
    facts = (
        f"{processor()}, {torch.get_num_threads()} threads; Python {platform.python_version()}; {versions}"
    )
    parts = [
        f"## {day}, commit {software.commit() or 'unknown'}",
        f"`{command}`",
        facts,
        *map(markdown, tables),
    ]
    with atomic.whole_file(path) as aside:
        aside.write_text("\n\n".join([there.rstrip("\n"), *parts]) + "\n", encoding="utf-8")


def markdown(table: Table) -> str:
    """The table's title and cells as Markdown."""
    heads = [str(column.header) for column in table.columns]
    rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    lines = [_row(heads), _row(["---"] * len(heads)), *(_row(row) for row in rows)]
    return "\n".join([*([f"{table.title}:", ""] if table.title else []), *lines])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
