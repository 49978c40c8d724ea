"""Rounds of sampling: what is missing, then what was rejected, until every class has its count."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState

from generate.config import Generate
from generate.outputs import credentials
from generate.outputs import folder as folders
from generate.outputs.folder import Task
from generate.planning.jobs import Job
from generate.sampling.tasks import Samplers, sample_all
from generate.screening import verdicts
from generate.screening.screens import ScreenPlan, Screens
from orchard import devices, shards
from orchard.files import storage


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
        UserError: too many images of a class were rejected, or no seed of its first rows gave one that can
            be used.
    """
    screens: Screens | None = None
    labels = [job.label for job in planned]
    changed = not (folder / shards.MANIFEST).is_file() or shards.pending(folder, labels)

    def missing() -> list[tuple[str, np.ndarray]]:
        tasks = folders.gaps(folder, planned)
        if not tasks:
            if changed:
                verdicts.settle(folder, [job.header for job in planned])
            tasks = folders.lacking(folder, planned, config.reject_limit)
        if tasks and screens is None:
            shards.upgrade(folder)
        return folders.numbered(tasks)

    while True:
        # One process looks: a network's file system may show each another state of the folder.
        tasks = folders.tasks_of(planned, devices.from_first(state, missing))
        if not tasks:
            return changed
        changed = True
        if screens is None:
            screens = Screens(config, screened)
        # Without a lock that holds everywhere no two processes may write one shard.
        cut = storage.is_local(folder) and devices.on_one_machine(state)
        own = share(tasks, config.batch_size, state, cut=cut)
        sample_all(folder, own, samplers, screens, credentials.signer(config.sign), state)
        state.wait_for_everyone()


def share(tasks: Sequence[Task], size: int, state: PartialState, *, cut: bool) -> list[Task]:
    """What this process samples: as many batches as the others, one after the other.

    So shards may be cut between two processes, which then write their rows to one file by turns; those that
    are not ``cut`` go to one process whole.
    """
    units = [
        (number, rows)
        for number, task in enumerate(tasks)
        for rows in (_batches(task, size) if cut else [task.shard.indices])
    ]
    process, processes = state.process_index, state.num_processes
    first, end = len(units) * process // processes, len(units) * (process + 1) // processes
    found = []
    for number, own in itertools.groupby(units[first:end], key=lambda unit: unit[0]):
        indices = np.sort(np.concatenate([rows for _, rows in own]))
        found.append(replace(tasks[number], shard=replace(tasks[number].shard, indices=indices)))
    return found


def _batches(task: Task, size: int) -> list[list[int]]:
    """The wanted rows of each sampling batch."""
    wanted = {int(index) for index in task.shard.indices}
    return [[index for index in span if index in wanted] for span in task.shard.spans(size)]
