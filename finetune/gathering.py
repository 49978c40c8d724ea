"""Entries by key, read where they are on disk and whole, made and kept where they are not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from finetune import entries
from finetune.entries import DamagedError, Key, Tensors
from orchard.terminal import Terminal, bar, say

MANY = 8
"""So many entries to make are worth a progress bar."""


def gather(
    folder: Path | None,
    keys: Sequence[Key],
    make: Callable[[int], Tensors],
    accelerator: Any,
    *,
    title: str,
    unit: str,
    least: int = MANY,
) -> list[Tensors]:
    """An entry for each of ``keys``, in order; ``make`` gives the one of a row.

    Called by every process: with a ``folder`` they share the work, without one each makes everything. Each
    entry is there once it is made, whatever happens to the others. Progress is shown in ``unit`` where
    ``least`` or more are to be made.
    """
    show = accelerator.is_main_process
    work = _Work(folder=folder, keys=keys, make=make, title=title, unit=unit, least=least, show=show)
    rows = range(len(keys))
    if folder is not None:
        work.fill(rows[accelerator.process_index :: accelerator.num_processes])
        accelerator.wait_for_everyone()
    # With a folder those of the other processes, to be made again where machines share no disk.
    work.fill(rows)
    _report(work.damaged, accelerator)
    return [work.found[row] for row in rows]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What one process has of the entries so far."""

    folder: Path | None
    keys: Sequence[Key]
    make: Callable[[int], Tensors]
    title: str
    unit: str
    least: int
    show: bool
    found: dict[int, Tensors] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def fill(self, rows: Iterable[int]) -> None:
        """Have the entries of ``rows``."""
        missing = [row for row in rows if row not in self.found and not self._read(row)]
        show = self.show and len(missing) >= max(self.least, 1)
        with bar(self.title, len(missing), unit=self.unit, show=show) as advance:
            for row in missing:
                self.found[row] = self.make(row)
                self._write(row)
                advance(1)

    def _read(self, row: int) -> bool:
        if self.folder is None:
            return False
        key = self.keys[row]
        try:
            entry = entries.read(entries.path_of(self.folder, key), key)
        except DamagedError as error:
            self.damaged.append(str(error))
            return False
        if entry is not None:
            self.found[row] = entry
        return entry is not None

    def _write(self, row: int) -> None:
        if self.folder is not None:
            key = self.keys[row]
            entries.write(entries.path_of(self.folder, key), key, self.found[row])


def _report(damaged: Sequence[str], accelerator: Any) -> None:
    """One line about the damaged entries that all processes met."""
    total = int(accelerator.reduce(torch.tensor(len(damaged), device=accelerator.device), "sum"))
    if total:
        example = f" ({damaged[0]})" if damaged else ""
        console = Terminal(quiet=not accelerator.is_main_process)
        say(console, f"cache     damaged entries made anew: {total}{example}")
