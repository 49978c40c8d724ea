"""``--search``: the recipe of lowest loss on an arm's own real images, looked for with Optuna."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from classify.config import MixingName
from classify.mixing import WEIGHTED, Mixing
from evaluate.experiment.arms import Run
from evaluate.experiment.own_generator import TuningError
from evaluate.experiment.validation_search import ALONE, KEEPS, Candidate, Choice, decide, of_recipe
from evaluate.generators import GENERATORS, NONE
from orchard.files import atomic
from orchard.images.images import sha256

FOLDER = "searches"
"""Of an experiment's output: a journal of Optuna's for each draw of an arm's real images."""
SHARES = (1.0, 0.5, 0.25, 0.1)
REAL_WEIGHTS = (0.8, 0.5, 0.3)
GUIDANCES = ("default", "1", "1.5", "3")
ADAPTER_WEIGHTS = (1.0, 0.75, 0.5)
PLAIN = {"share": 1.0, "mixing": "union", "guidance": GUIDANCES[0], "keep": "", "adapter_weight": 1.0}
"""A generator as it is."""
PRUNED_AT = 0.1
"""p of the signed-rank test by which a recipe that is worse than the best one so far is given up."""
DRAWS = 10
"""For each recipe that is tried, at most: where the sampler comes back to one, chance has the next turn."""
RECIPE, LOSSES, FAILED = "recipe", "losses", "failed"
"""What a trial notes."""

Losses = Callable[[Candidate], Iterator[np.ndarray]]
"""Yields the losses of an arm's real images, one part of them after the other."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How recipes are looked for."""

    folder: Path
    """Keeps the trials, so that a search that was stopped goes on."""
    trials: int
    """Recipes that are tried; no synthetic images and every generator as it is are, whatever their number."""
    hours: float
    """After these no further one is tried; 0 for no limit."""

    def choose(self, run: Run, losses_of: Losses) -> Choice:
        """What `decide` takes of the recipes tried, those that were given up or failed left out."""
        study = self._study(run)
        self._try(study, (NONE, *run.candidates), losses_of)
        done = study.get_trials(states=(TrialState.COMPLETE,))
        tried = {_candidate(trial): np.array(trial.user_attrs[LOSSES]) for trial in done}
        choice = decide(tried, _left(study))
        assert choice.record is not None
        return replace(choice, record={**choice.record, "recipe": asdict(choice.candidate)})

    def _study(self, run: Run) -> optuna.Study:
        """The search of the run's draw of images, as far as it came."""
        atomic.writable(self.folder)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        photos = sorted(photo.sha256 for photo in run.real)
        name = sha256(repr((run.choice_key, photos)).encode())[:16]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study = optuna.create_study(
                study_name=name,
                storage=JournalStorage(JournalFileBackend(str(self.folder / f"{name}.log"))),
                load_if_exists=True,
                sampler=optuna.samplers.TPESampler(seed=run.seeds.subset),
                pruner=optuna.pruners.WilcoxonPruner(p_threshold=PRUNED_AT),
            )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):  # cut off by a stop
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        return study

    def _try(self, study: optuna.Study, generators: Sequence[str], losses_of: Losses) -> None:
        if not study.trials:
            for name in generators:
                study.enqueue_trial({"generator": name, **PLAIN})
        ends = time.monotonic() + self.hours * 3600 if self.hours else float("inf")
        least, most = len(generators), max(self.trials, len(generators))
        sampler, random = study.sampler, optuna.samplers.RandomSampler(seed=len(study.trials))
        known = {_candidate(trial) for trial in study.trials if _counts(trial)}
        for _ in range(DRAWS * most):
            if len(known) >= most or (len(known) >= least and time.monotonic() > ends):
                return
            trial = study.ask()
            candidate = suggested(trial, generators)
            study.sampler = random if candidate in known else sampler
            if candidate in known:
                study.tell(trial, state=TrialState.FAIL)
                continue
            trial.set_user_attr(RECIPE, asdict(candidate))
            _judge(study, trial, losses_of(candidate))
            known.add(candidate)


def suggested(trial: Trial, generators: Sequence[str]) -> Candidate:
    """A point of the space; a generator is not asked for what it has no use for."""
    name = trial.suggest_categorical("generator", generators)
    if name == NONE:
        return ALONE
    found: dict[str, Any] = {"generator": name, "share": trial.suggest_categorical("share", SHARES)}
    mixing = trial.suggest_categorical("mixing", get_args(MixingName))
    weighted = mixing in WEIGHTED
    weight = trial.suggest_categorical("real_weight", REAL_WEIGHTS) if weighted else Mixing.real_weight
    found["mixing"] = Mixing(name=mixing, real_weight=weight)
    if made := GENERATORS.get(name):
        guidance = trial.suggest_categorical("guidance", GUIDANCES)
        found["guidance"] = None if guidance == GUIDANCES[0] else float(guidance)
        found["keep"] = trial.suggest_categorical("keep", ("", *KEEPS))
        if made.tuning is not None:
            found["adapter_weight"] = trial.suggest_categorical("adapter_weight", ADAPTER_WEIGHTS)
    return Candidate(**found)


def _judge(study: optuna.Study, trial: Trial, parts: Iterator[np.ndarray]) -> None:
    """Give the trial its losses; one that is clearly worse than the best is given up after a part."""
    losses: list[float] = []
    try:
        for part in parts:
            for loss in part.tolist():
                trial.report(loss, len(losses))
                losses.append(loss)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return
    except TuningError as error:
        trial.set_user_attr(FAILED, str(error))
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr(LOSSES, losses)
    study.tell(trial, float(np.mean(losses)))


def _counts(trial: FrozenTrial) -> bool:
    """Whether a recipe was tried in it: neither one that came twice nor one that was cut off."""
    noted: Mapping[str, Any] = trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or FAILED in noted


def _candidate(trial: FrozenTrial) -> Candidate:
    return of_recipe(trial.user_attrs[RECIPE])


def _left(study: optuna.Study) -> list[str]:
    """What was not tried to its end, with the reason."""
    trials = [trial for trial in study.trials if _counts(trial) and trial.state != TrialState.COMPLETE]
    return [
        f"{_candidate(trial).label} ({trial.user_attrs.get(FAILED) or 'given up as worse'})"
        for trial in trials
    ]
