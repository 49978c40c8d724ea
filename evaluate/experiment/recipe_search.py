"""``--search``: the recipe of lowest loss on an arm's own real images, looked for with Optuna."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_args

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import BaseTrial, FixedTrial, TrialState, create_trial

from classify.config import MixingName
from classify.mixing import WEIGHTED, Mixing
from evaluate.experiment.arms import Run
from evaluate.experiment.own_generator import TuningError
from evaluate.experiment.validation_search import ALONE, KEEPS, Candidate, Choice, decide
from evaluate.generators import GENERATORS, NONE
from evaluate.records.records import MixingChoice
from orchard.errors import UserError
from orchard.files import atomic, checked_json, json_lines
from orchard.images.images import sha256

FOLDER = "searches"
"""Of an experiment's output: the trials of each draw of an arm's real images."""
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

Losses = Callable[[Candidate], Iterator[np.ndarray]]
"""Yields the losses of an arm's real images, one part of them after the other."""


class Tried(TypedDict):
    """A line of a search's file."""

    params: dict[str, Any]
    """The point of the space, as `suggested` asks for it."""
    losses: list[float]
    """In nats, of each of the arm's real images; of a recipe that was given up those until then."""
    given_up: NotRequired[bool]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How recipes are looked for."""

    folder: Path
    """Keeps what was tried, so that a search that was stopped goes on."""
    trials: int
    """Recipes that are tried; no synthetic images and every generator as it is are, whatever their number."""
    hours: float
    """After these no further one is tried; 0 for no limit."""

    def choose(self, run: Run, losses_of: Losses) -> Choice:
        """What `decide` takes of the recipes that were tried to their end.

        Raises:
            UserError: none could be tried, or what was tried before cannot be read.
            TuningError: images could not be made for another reason than that a command refuses to.
        """
        trials = Trials(path=self._path(run), generators=(NONE, *run.candidates))
        trials.read()
        self._try(trials, losses_of)
        if len(trials.whole) == 1 and not trials.given_up:
            raise UserError(f"no recipe could be tried: {'; '.join(trials.refused.values())}")
        choice = decide(trials.whole)
        assert choice.record is not None
        record: MixingChoice = {
            **choice.record,
            "untried": [f"{candidate.label} ({why})" for candidate, why in trials.refused.items()],
            "given_up": [candidate.label for candidate in trials.given_up],
            "recipe": asdict(choice.candidate),
        }
        return replace(choice, record=record)

    def _path(self, run: Run) -> Path:
        photos = sorted(photo.sha256 for photo in run.real)
        return self.folder / f"{sha256(repr((run.choice_key, photos)).encode())[:16]}.jsonl"

    def _try(self, trials: "Trials", losses_of: Losses) -> None:
        """Try no synthetic images, every generator as it is, and then what the sampler asks for."""
        for name in trials.generators:
            trials.judge({"generator": name, **PLAIN}, losses_of)
        ends = time.monotonic() + self.hours * 3600 if self.hours else float("inf")
        most = max(self.trials, len(trials.generators))
        for _ in range(DRAWS * most):
            if len(trials.known) >= most or time.monotonic() > ends:
                return
            trials.judge(None, losses_of)


@dataclass(kw_only=True)
class Trials:
    """What a search has tried, in its file and as Optuna's sampler and pruner see it."""

    path: Path
    generators: Sequence[str]
    whole: dict[Candidate, np.ndarray] = field(default_factory=dict)
    """Losses of the recipes that were tried to their end."""
    given_up: list[Candidate] = field(default_factory=list)
    refused: dict[Candidate, str] = field(default_factory=dict)
    """Recipes whose images cannot be made here, and why; not kept, since it may be mended."""

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            pruner = optuna.pruners.WilcoxonPruner(p_threshold=PRUNED_AT)
        self.sampler, self.random = optuna.samplers.TPESampler(seed=0), optuna.samplers.RandomSampler(seed=0)
        self.study = optuna.create_study(sampler=self.sampler, pruner=pruner)

    @property
    def known(self) -> set[Candidate]:
        """All that was tried."""
        return {*self.whole, *self.given_up, *self.refused}

    def _is_known(self, candidate: Candidate) -> bool:
        """Whether there is nothing to learn from it: it was tried, or its generator is refused."""
        barred = {one.generator for one in self.refused}
        return candidate in self.known or candidate.generator in barred

    def read(self) -> None:
        """Take up what the file has; raise `UserError` where that is damaged or of another version."""
        if not self.path.is_file():
            return
        try:
            for line in json_lines.each(self.path):
                self._add(checked_json.typed(Tried, line))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.path}: damaged, or of another version ({error}); remove it to search anew"
            ) from None

    def _add(self, tried: Tried) -> None:
        trial = FixedTrial(tried["params"])
        candidate, losses = suggested(trial, self.generators), np.array(tried["losses"], dtype=np.float64)
        given_up = tried.get("given_up", False)
        if losses.ndim != 1 or not len(losses) or not np.isfinite(losses).all():
            raise ValueError("losses that are no numbers")
        if not given_up and any(len(losses) != len(others) for others in self.whole.values()):
            raise ValueError("losses of other images")
        self._note(candidate, losses, given_up=given_up)
        self.study.add_trial(
            create_trial(
                state=TrialState.PRUNED if given_up else TrialState.COMPLETE,
                value=float(losses.mean()),
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=dict(enumerate(losses.tolist())),
            )
        )

    def _note(self, candidate: Candidate, losses: np.ndarray, *, given_up: bool) -> None:
        if given_up:
            self.given_up.append(candidate)
        else:
            self.whole[candidate] = losses

    def judge(self, params: Mapping[str, Any] | None, losses_of: Losses) -> None:
        """Try a point of the space, by default what the sampler asks for, unless it is known.

        One that is clearly worse than the best is given up after a part of the images; `ALONE` never is.
        """
        if params is not None:
            if self._is_known(suggested(FixedTrial(dict(params)), self.generators)):
                return
            self.study.enqueue_trial(dict(params))
        trial = self.study.ask()
        candidate = suggested(trial, self.generators)
        known = self._is_known(candidate)
        self.study.sampler = self.random if known else self.sampler
        if known:
            self.study.tell(trial, state=TrialState.FAIL)
            return
        losses: list[float] = []
        given_up = False
        try:
            for part in losses_of(candidate):
                for loss in part.tolist():
                    trial.report(loss, len(losses))
                    losses.append(loss)
                if given_up := candidate != ALONE and trial.should_prune():
                    break
        except TuningError as error:
            if not error.refused:
                raise
            self.refused[candidate] = str(error)
            self.study.tell(trial, state=TrialState.FAIL)
            return
        line = Tried(params=trial.params, losses=losses, given_up=given_up)
        atomic.writable(self.path.parent)
        json_lines.append(self.path, line)
        self._note(candidate, np.array(losses), given_up=given_up)
        state = TrialState.PRUNED if given_up else TrialState.COMPLETE
        self.study.tell(trial, None if given_up else float(np.mean(losses)), state=state)


def suggested(trial: BaseTrial, generators: Sequence[str]) -> Candidate:
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
        if made.weighs:
            found["adapter_weight"] = trial.suggest_categorical("adapter_weight", ADAPTER_WEIGHTS)
    return Candidate(**found)
