"""The runs of an experiment, shared by the processes of a launch; what fails is named, the rest goes on."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from evaluate.analysis.predictions import answers
from evaluate.experiment.arms import Run
from evaluate.experiment.own_generator import OwnGenerator, TuningError
from evaluate.experiment.runner import Experiment
from evaluate.records import records
from evaluate.records.records import Record
from orchard.cli.terminal import bar
from orchard.errors import UserError, WriteError, listed


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep leaves behind, besides its records."""

    failures: Sequence[str]
    """One line each: the run, and why it has no record."""
    seconds: float
    """Of all processes' training and scoring in this sweep."""
    seconds_network: float


def finished(folder: Path) -> dict[records.Key, Record]:
    """The records of ``folder`` by run."""
    return {records.key(record): records.complete(record) for record in records.read(folder)}


def again(runs: Sequence[Run], done: Mapping[records.Key, Record], external: Collection[str]) -> list[Run]:
    """Finished runs that were not scored on all of ``external``: without their classifiers, train them again.

    Raises:
        UserError: they were scored on other sets besides, which a new record would be without.
    """
    scored = [(run, set(done[run.key]["external"])) for run in runs if run.key in done]
    short = [(run, there) for run, there in scored if not there.issuperset(external)]
    left_out = sorted(set().union(*(there for _, there in short)).difference(external))
    if left_out:
        raise UserError(
            f"--external: {len(short)} finished runs are trained again, which were scored on "
            f"{listed(left_out)} too; name that as well"
        )
    return [run for run, _ in short]


def alike(before: Record, after: Record) -> bool:
    """Whether two records of a run take every test image for the same class."""
    return np.array_equal(answers(before).predicted, answers(after).predicted)


def share(runs: Sequence[Run], process: int, processes: int) -> list[Run]:
    """One process's runs, in order. Those that share a generator or a choice stay together: made once."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(_together(run), []).append(run)
    # Dealt out apart, so that no process gets all the generators.
    short, long = ([group for group in groups.values() if _makes_images(group[0]) == made] for made in (0, 1))
    mine = {run.key for group in [*long, *short][process::processes] for run in group}
    return [run for run in runs if run.key in mine]


def _makes_images(run: Run) -> bool:
    return any(isinstance(source, OwnGenerator) for source in run.sources)


def _together(run: Run) -> Hashable:
    """A fold's arms share its generators; the classifiers of a draw of images share what is chosen on it."""
    if run.chooses and run.arm.fold is None:
        return run.choice_key
    own = [source.together for source in run.sources if isinstance(source, OwnGenerator)]
    return own[0] if own else run.key


def sweep(experiment: Experiment, runs: Sequence[Run], folder: Path, state: PartialState) -> Outcome:
    """Train, score and record every run; ``state`` knows the processes that share them."""
    mine = share(runs, state.process_index, state.num_processes)
    failures: list[str] = []
    seconds = network = 0.0
    with bar(
        "evaluating", _steps(experiment, mine), unit="steps", show=state.is_main_process and bool(mine)
    ) as advance:
        for run, record in _attempts(experiment, mine, advance):
            if isinstance(record, str):
                failures.append(f"{run.title}: {record}")
                continue
            records.append(folder, record)
            seconds, network = seconds + record["seconds"], network + record["seconds_network"]
    gathered = gather_object([(failures, seconds, network)])
    return Outcome(
        failures=[line for found, _, _ in gathered for line in found],
        seconds=sum(part for _, part, _ in gathered),
        seconds_network=sum(part for _, _, part in gathered),
    )


def _attempts(
    experiment: Experiment, runs: Sequence[Run], advance: Callable[..., None]
) -> Iterator[tuple[Run, Record | str]]:
    """Each run with its record, or with the reason why it has none."""
    lost: dict[str, str] = {}
    for run in runs:
        failed = next((lost[source.name] for source in run.sources if source.name in lost), None)
        if failed is not None:
            yield run, failed
            continue
        if any(not source.is_there for source in run.sources):
            advance(0, f"{run.title}: its own images")
        try:
            yield run, experiment.record(run, lambda name, step: advance(1, f"{name}, loss {step.loss:.3f}"))
        except WriteError:  # the other arms could not be kept either
            raise
        except Exception as error:  # whatever it was, the other arms are still worth having
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, TuningError) and run.source is not None:
                lost[run.source.name] = reason
            yield run, reason


def _steps(experiment: Experiment, runs: Sequence[Run]) -> int:
    """Optimiser steps of classifiers, those that a choice takes included."""
    choosing = {run.choice_key: run for run in runs if run.chooses}.values()
    tries = sum(run.options.steps * experiment.tries(run) for run in choosing)
    return sum(run.options.steps for run in runs) + tries
