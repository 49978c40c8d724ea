"""Rounds of sampling: what is missing, then what was rejected, until every class has its count."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from generate.config import Generate
from generate.outputs import credentials
from generate.outputs import folder as folders
from generate.planning.jobs import Job
from generate.sampling.tasks import Samplers, sample_all
from generate.screening import verdicts
from generate.screening.screens import ScreenPlan, Screens
from orchard import shards


def fill(
    config: Generate,
    folder: Path,
    planned: Sequence[Job],
    samplers: Samplers,
    screened: ScreenPlan,
    state: PartialState,
) -> bool:
    """Sample, judge rows among each other, top up; whether anything changed, or the set was incomplete.

    Raises:
        UserError: too many images of a class were rejected, or no seed of a row gave one that can be used.
    """
    screens: Screens | None = None
    labels = [job.label for job in planned]
    changed = not (folder / shards.MANIFEST).is_file() or shards.pending(folder, labels)
    while True:
        tasks = folders.gaps(folder, planned)
        if not tasks:
            if changed:
                _in_one_process(state, verdicts.settle, folder, [job.header for job in planned])
            tasks = folders.lacking(folder, planned, config.reject_limit)
        state.wait_for_everyone()  # until each has seen the folder as it was
        if not tasks:
            return changed
        changed = True
        if screens is None:
            _in_one_process(state, shards.upgrade, folder)
            screens = Screens(config, screened)
        own = tasks[state.process_index :: state.num_processes]
        sample_all(folder, own, samplers, screens, credentials.signer(config.sign), state)
        state.wait_for_everyone()


def _in_one_process(state: PartialState, action: Callable[..., None], *arguments: Any) -> None:
    """What is done to the folder as a whole, while the other processes wait."""
    state.wait_for_everyone()
    if state.is_main_process:
        action(*arguments)
    state.wait_for_everyone()
