"""`records.jsonl`: one line a finished run, and what must be equal for a sweep to go on.

Every record has ``design``, ``ratio`` (share of real images), ``shots`` (real images per class, or null),
``seed`` (the classifier's), ``n_real``, ``n_synthetic``, ``steps``, ``classes``, every metric of
`evaluate.metrics.score`, ``validation_accuracy``, ``seconds`` and ``predictions``: ``files`` and ``truth`` of
the test images, and a row of ``probabilities`` for each, in the order of ``classes``. In older versions it is
a list with ``file``, ``truth`` and ``probabilities`` (class -> share) of each image. A probability has 8
digits, or as many of what it lacks to 1.

Records of this version also have

- ``arm``: ``ratio`` (a mixture), its controls ``oversampled`` (the mixture's real images alone), ``strong``
  (all real images, strong augmentation) and ``without_SCREEN`` (synthetic images as if that screen of
  generate had not been there), ``shots`` (low-shot, with or without synthetic images: see ``n_synthetic``)
  or ``fold`` (cross-validation); of older versions also ``untuned`` (a given set of the untuned base);
- ``generator``: what made the synthetic images, of `evaluate.generators`: ``none`` without any, ``given`` for
  the set in ``--synthetic``, or such as ``tuned``; ``auto of untuned, tuned`` was chosen among these;
- ``total``: images in a mixture where ``--total`` said how many; 0 where it was those of the real set;
- ``fold`` and ``repeat``: which fold of which division, both from 0; null outside cross-validation;
- ``mixing``: how the two sources were mixed, such as ``union`` or ``weight 0.8``; always ``union`` where
  there is one source alone; ``auto 0.8`` (its real weight) was chosen;
- ``mixing_choice``: what was chosen on validation images, mixing or generator or both, else null: ``chosen``,
  ``tried`` (candidate -> mean negative log-likelihood in nats), ``errors`` (candidate -> standard error of
  the difference to no synthetic images; not in older versions, which took the lowest on a tenth that was
  held out), ``untried``, and of a search ``recipe``, what was chosen
  as `validation_search.Candidate` has it, and ``given_up``, what was worse before it was tried to its end;
- ``subset_seed``, and ``generator_seed`` (null where the images came from a given folder);
- ``train_files``: SHA-256 over the label and hash of every training image;
- ``commit``: of the checkout, ``+`` appended when it had changes; null outside of one;
- ``external``: name of a further real set -> its metrics and ``predictions``, as above;
- ``seconds_network``: the part of ``seconds`` spent in the network;
- ``nll`` and ``ece``: see `evaluate.metrics`.

`complete` gives a record of an older version the values that it stands for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from evaluate.generators import NONE, plain
from evaluate.metrics import Scores
from evaluate.records import predictions
from evaluate.records.predictions import Predictions
from orchard.errors import UserError, differences
from orchard.files import checked_json, json_lines
from orchard.files.atomic import write_json

REAL_PART = "oversampled"
"""The arm that is the real part of a mixture alone."""
WITHOUT = "without_"
"""Before the name of a screen: the arm whose synthetic images that screen did not judge."""
RECORDS, EXPERIMENT = "records.jsonl", "experiment.json"
ADDED: Mapping[str, Any] = {
    "arm": "ratio",
    "total": 0,
    "fold": None,
    "repeat": None,
    "mixing": "union",
    "mixing_choice": None,
    "generator_seed": None,
    "commit": None,
    "external": {},
}
"""Fields that older records lack, and what their lack meant."""
UNNOTED: Mapping[str, Any] = {
    "augmentation": "plain",
    "pretrained": "",
    "decoding": 1,
    "left_over": False,
    "external": {},
    "commands": [],
}
"""What the experiments of older versions did not note, and what it was."""
NOTED: Mapping[str, Any] = {"external": dict[str, str], "commands": list[str]}
"""Types of what is read back of the experiment before it is used."""
KEY = (
    "arm", "design", "ratio", "total", "shots", "fold", "repeat", "mixing", "generator",
    "subset_seed", "generator_seed", "seed",
)  # fmt: skip


class Tested(Scores):
    """The scores on a set, and what they are made of."""

    predictions: Predictions


class External(TypedDict):
    """What readers lean on in the scores on a further set."""

    accuracy: float
    predictions: Predictions


class MixingChoice(TypedDict):
    """How the mixing of an arm, or its generator, was chosen."""

    chosen: str
    tried: dict[str, float]
    errors: NotRequired[dict[str, float]]
    recipe: NotRequired[dict[str, Any]]
    given_up: NotRequired[list[str]]
    untried: list[str]


class Stored(TypedDict):
    """What a line of any version has."""

    design: str
    ratio: float
    shots: int | None
    seed: int


class Identity(Stored):
    """What tells a run from others."""

    arm: str
    total: int
    fold: int | None
    repeat: int | None
    mixing: str
    generator: str
    subset_seed: int | None
    generator_seed: int | None


class Record(Identity, Tested):
    """A finished run. Readers lean on the required keys."""

    n_real: int
    n_synthetic: int
    steps: int
    classes: list[str]
    external: Mapping[str, External]
    mixing_choice: MixingChoice | None
    commit: str | None
    validation_accuracy: NotRequired[float | None]
    train_files: NotRequired[str]
    seconds: NotRequired[float]
    seconds_network: NotRequired[float]


Key = tuple[Any, ...]
"""The values of `KEY`: what tells one run from another within an experiment."""


def key(record: Stored) -> Key:
    """What tells one run from another within an experiment."""
    whole: Mapping[str, object] = complete(record)
    return tuple(whole[name] for name in KEY)


def arm_key(record: Stored) -> Key:
    """The same for all runs of an arm: `key` without the seeds."""
    whole: Mapping[str, object] = complete(record)
    return tuple(whole[name] for name in KEY if not name.endswith("seed"))


def choice_key(record: Stored) -> Key:
    """The same for all runs of an arm on one draw of images, which share a choice: `key` but for the
    classifier's seed.
    """
    whole: Mapping[str, object] = complete(record)
    return tuple(whole[name] for name in KEY if name != "seed")


def complete(record: Stored) -> Record:
    """The record with every field that an older version did not write."""
    found = {**ADDED, "subset_seed": record["seed"], **record}
    alone = record["ratio"] == 1 or found["arm"] == REAL_PART
    return cast(Record, {"generator": NONE if alone else plain(found["arm"]), **found})


def read(folder: Path) -> list[Stored]:
    """Finished runs in the order they finished; a last line cut off by a crash does not count.

    A run that was trained again, to be scored on one more set, has its later record in place of the earlier.

    Raises:
        UserError: a line in the middle is damaged.
    """
    path = folder / RECORDS
    if not path.is_file():
        return []
    try:
        found = [_parsed(line) for line in json_lines.each(path)]
        if any("total" not in record for record in found):
            found = [_with_total(record, folder) for record in found]
        return list({key(record): record for record in found}.values())
    except (ValueError, TypeError) as error:  # the latter from a list where the key has a name
        raise UserError(
            f"{path}: damaged ({error}); remove the bad line or choose another --output"
        ) from None


def _parsed(line: Any) -> Stored:
    record = checked_json.typed(Stored, line)
    if "classes" not in line or "predictions" not in line:  # `validate` says what is missing
        return record
    classes = checked_json.conform(list[str], line["classes"], "classes")
    checked_json.conform(dict[str, dict[str, Any]], line.get("external", {}), "external")
    return cast(Stored, _with_predictions(line, lambda said: predictions.read(said, classes)))


def _with_predictions(record: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The record with its predictions changed, and those on further sets, where it has any."""

    def changed(scores: Mapping[str, Any]) -> dict[str, Any]:
        return {name: change(value) if name == "predictions" else value for name, value in scores.items()}

    found = changed(record)
    if "external" in record:
        found["external"] = {name: changed(scores) for name, scores in record["external"].items()}
    return found


def as_line(record: Record) -> dict[str, Any]:
    """The record as JSON values, its predictions by columns."""
    return _with_predictions(record, lambda said: predictions.of(said, record["classes"]).columns())


def _with_total(record: Stored, folder: Path) -> Stored:
    """Older records of plain mixtures leave the total to what the experiment says of itself."""
    total = noted(folder).get("total") if (folder / EXPERIMENT).is_file() else 0
    without = complete(record)["arm"] in ("strong", "shots", "fold")
    return record if without or not total else cast(Stored, {"total": total, **record})


def append(folder: Path, record: Record) -> None:
    """Add one finished run; raises as `json_lines.append`."""
    json_lines.append(folder / RECORDS, as_line(record))


def noted(folder: Path) -> dict[str, Any]:
    """What the experiment in ``folder`` is; raise `UserError` when that cannot be read."""
    path = folder / EXPERIMENT
    try:
        value = checked_json.parse(checked_json.read(path))
        return checked_json.table(NOTED, {**UNNOTED, **checked_json.table({}, value)})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another --output") from None


def note_command(folder: Path, command: str) -> None:
    """Add to what the experiment is how runs of it were made; `require_same` has noted the rest."""
    there = noted(folder)
    commands = dict.fromkeys([*there["commands"], command])
    write_json(folder / EXPERIMENT, {**there, "commands": list(commands)})


def note_external(folder: Path, external: Mapping[str, str]) -> None:
    """Add to what the experiment is on which further sets it was scored, by name and digest."""
    there = noted(folder)
    write_json(folder / EXPERIMENT, {**there, "external": {**there["external"], **external}})


def require_same(folder: Path, experiment: Mapping[str, Any]) -> None:
    """Note what this experiment is; raises `UserError` as `require_agreement`."""
    require_agreement(folder, experiment)
    used = {name: value for name, value in experiment.items() if value is not None}
    there = json_lines.has_one(folder / RECORDS)
    write_json(folder / EXPERIMENT, {**noted(folder), **used} if there else experiment)


def require_agreement(folder: Path, experiment: Mapping[str, Any]) -> None:
    """Raise `UserError` with the difference when another experiment is in ``folder``.

    A value of None was not used, so it agrees with any other.
    """
    if not json_lines.has_one(folder / RECORDS):
        return
    used = {name: value for name, value in experiment.items() if value is not None}
    known = {name: value for name, value in noted(folder).items() if value is not None}
    changes = differences({**used, **known}, {**known, **used})
    if changes:
        raise UserError(f"--output {folder}: holds another experiment: {changes}; choose another --output")
