"""`python -m evaluate`: check, decode, run what is missing, report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console

from evaluate.analysis.analyse import Analysis
from evaluate.config import Evaluate
from evaluate.experiment import plan_text, shown_images
from evaluate.experiment.arms import Run
from evaluate.experiment.image_sets import Sets, load
from evaluate.experiment.mixtures import parse
from evaluate.experiment.own_generator import protocol, require_prompts
from evaluate.experiment.plan import division, plan
from evaluate.experiment.recipe_search import FOLDER, Search
from evaluate.experiment.runner import Experiment, Pixels
from evaluate.experiment.sweep import Outcome, again, alike, finished, sweep
from evaluate.experiment.validation_search import Choice, chosen
from evaluate.gap import real_only_classifier
from evaluate.records import combine, records
from evaluate.records.records import Record
from evaluate.report import context, publish
from orchard import devices
from orchard.classifiers.embeddings import Embed, of_backbone
from orchard.classifiers.networks import build, require_name
from orchard.cli import cli
from orchard.cli.terminal import Terminal, bar, say
from orchard.errors import UserError
from orchard.files import atomic
from orchard.files.lock import writing
from orchard.images.images import DECODING, ImageSet
from orchard.images.thumbnails import saved_again

PER_ARM = {
    *("ratios", "design", "controls", "mixing", "real_weight", "shots", "repeats", "generators", "arm_count"),
    "search",
}
"""Options that arms of one experiment may differ in; their records say so."""
RESOLVED = {
    *("data", "synthetic", "size", "precision", "total", "folds", "left_over"),
    *("base", "arm_steps", "arm_prompt", "trials", "hours"),
}
"""Options of which the identity of an experiment holds what they came to, such as a set's digest."""
BESIDES = {"seed", "seeds", "vary_seeds", "external", "also", "margin", "backbone", "output"}
"""Options that change no record, or add records of their own."""
FAILED = 1
"""Exit code when some runs failed; 2 is for what a user can mend before any work."""


class FailedError(UserError):
    """Runs failed, and there is no other one to report on."""

    code = FAILED


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an experiment has found so far."""

    analysis: Analysis
    report: Path
    failures: Sequence[str]
    """A line for each run that has no record: which one, and why."""


def run(config: Evaluate) -> None:
    """Run `evaluate` as a command."""
    found = evaluate(config)
    devices.processes().destroy_process_group()
    if found and found.failures:
        raise SystemExit(FAILED)


def evaluate(config: Evaluate) -> Evaluated | None:
    """Train, score and record what is missing, and report; None with dry_run, and but for the first process.

    Raises:
        UserError: whatever the user can mend, or no run has a record.
    """
    config.require_valid()
    require_name(config.model)
    shares = parse(config.ratios, config.laid_out)
    if config.search and config.ratios == Evaluate.ratios:
        shares = shares[-1:]  # a recipe may have fewer synthetic images than there are at most
    state = devices.processes()
    dtype = devices.torch_dtype(config.precision, state.device)
    precision = devices.dtype_name(dtype)
    with state.main_process_first():  # it downloads what the others find
        sets = load(config, shares)
    sets = replace(sets, external=combine.named(config.output, sets.external))
    runs = plan(config, sets, shares, precision)
    identity = _identity(config, sets, precision)
    records.require_agreement(config.output, identity)
    combine.require_alike(config.also, identity)
    before = finished(config.output)
    anew = again(runs, before, sets.external)
    if sets.base and config.arm_prompt:
        require_prompts(config.arm_prompt, sets.base, config.data, sets.train.classes)
    console = Terminal(quiet=not state.is_main_process)
    plan_text.plan(console, config, sets, runs, precision, state.num_processes, anew=len(anew))
    # What cannot take the size or the weights, or is not there, says so here, before anything is decoded.
    build(config.model, len(sets.train.classes), sets.sizes.size, config.seed, config.pretrained)
    backbones = {name: of_backbone(name, state.device) for name in [config.backbone] if name}
    if config.dry_run:
        return None
    pixels = _decoded(sets, state)
    if state.is_main_process:
        sets = _with_copies(console, sets, pixels)
    experiment = _experiment(config, sets, runs, pixels, device=state.device, dtype=dtype)
    atomic.writable(config.output)
    with writing(config.output, state):
        devices.require_same(state, {**identity, "runs": [one.key for one in runs]})
        missing = _begin(config, identity, sets, runs, state)
        outcome = sweep(experiment, missing, config.output, state)
        if not state.is_main_process:
            return None
        page = _report(console, config, sets, runs, experiment, backbones)
        _say_how_it_went(console, outcome)
        _say_what_changed(console, [before[one.key] for one in anew], finished(config.output))
    if page is None:
        raise FailedError(f"no run has a record; {outcome.failures[0]}")
    analysis, report = page
    return Evaluated(analysis=analysis, report=report, failures=outcome.failures)


def _decoded(sets: Sets, state: PartialState) -> Pixels:
    """The pixels of every image that is there before the experiment begins."""
    pixels = Pixels(sets.sizes)
    photos = {photo.sha256: photo for photo in sets.photos()}
    with bar("decoding", len(photos), unit="images", show=state.is_main_process) as advance:
        pixels.add(list(photos.values()), advance)
    return pixels


def _with_copies(console: Console, sets: Sets, pixels: Pixels) -> Sets:
    """The sets, with a note where images that are scored are training images saved again."""
    train = sets.train
    known = pixels.rows(train.photos)
    scored = (sets.test, *sets.external.values())
    notes = [note for one in scored for note in saved_again(one, pixels.rows(one.photos), train, known)]
    for note in notes:
        say(console, f"note      {note}")
    return replace(sets, train=replace(train, notes=(*train.notes, *notes)))


def _experiment(
    config: Evaluate,
    sets: Sets,
    runs: Sequence[Run],
    pixels: Pixels,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Experiment:
    return Experiment(
        classes=sets.train.classes,
        external=sets.external,
        firsts={one.choice_key: one for one in reversed(runs)},
        pixels=pixels,
        device=device,
        dtype=dtype,
        on_fitted=partial(real_only_classifier.offer, config, sets, real_only_classifier.chosen(runs)),
        search=Search(folder=config.output / FOLDER, trials=config.trials, hours=config.hours),
        choices=_choices(config, runs),
    )


def _choices(config: Evaluate, runs: Sequence[Run]) -> dict[records.Key, Choice]:
    """What earlier commands chose for arms that have more runs now."""
    choosing = {one.choice_key: one for one in runs if one.chooses}
    found = {
        key: chosen(record, choosing[key])
        for record in finished(config.output).values()
        if (key := records.choice_key(record)) in choosing
    }
    return {key: choice for key, choice in found.items() if choice}


def _begin(
    config: Evaluate, identity: dict[str, Any], sets: Sets, runs: Sequence[Run], state: PartialState
) -> list[Run]:
    """Note the experiment in its folder; the runs that are not there yet, or not scored on all sets."""

    def keys() -> set[records.Key]:
        done = finished(config.output)
        short = {one.key for one in again(runs, done, sets.external)}
        missing = {one.key for one in runs if one.key not in done} | short
        records.require_same(config.output, identity)
        digests = {name: images.digest() for name, images in sets.external.items()}
        records.note_external(config.output, digests)
        if missing:
            records.note_command(config.output, context.command(config))
        return missing

    missing = devices.from_first(state, keys)
    return [one for one in runs if one.key in missing]


def _report(
    console: Console,
    config: Evaluate,
    sets: Sets,
    runs: Sequence[Run],
    experiment: Experiment,
    backbones: Mapping[str, Embed],
) -> tuple[Analysis, Path] | None:
    """The analysis and its page; None where no run has a record."""
    done = finished(config.output)
    if not done:
        return None
    shown = shown_images.select(config, sets, runs, done)
    own = real_only_classifier.features((config.output, *config.also), shown[0].test, experiment.device)
    return publish.publish(console, config, sets, shown, {**own, **backbones}, experiment.pixels.rows)


def _say_how_it_went(console: Console, outcome: Outcome) -> None:
    if outcome.seconds:
        part = outcome.seconds_network / outcome.seconds
        say(console, f"classifiers took {outcome.seconds:.0f} s, {part:.0%} of it in the network")
    for line in outcome.failures:
        say(console, f"failed: {line}")
    if outcome.failures:
        say(console, f"{len(outcome.failures)} runs have no record; the same command tries them again")


def _say_what_changed(console: Console, before: Sequence[Record], done: Mapping[records.Key, Record]) -> None:
    """Whether runs that were trained again came out as they were: on one machine and version they do."""
    pairs = [(record, done[records.key(record)]) for record in before]
    anew = [alike(*pair) for pair in pairs if pair[0] != pair[1]]
    same = sum(anew)
    if anew:
        say(
            console,
            f"trained again: {same} of {len(anew)} runs take every test image for the same class as before"
            + ("; of the others the new records count" if same < len(anew) else ""),
        )


def _identity(config: Evaluate, sets: Sets, precision: str) -> dict[str, Any]:
    """What must be the same for two runs to belong to one experiment; None where it plays no part."""
    apart = PER_ARM | RESOLVED | BESIDES
    return {
        **{name: value for name, value in cli.describe(config).items() if name not in apart},
        "size": sets.sizes.size,
        "through": sets.sizes.through,
        "total": None if config.own_photos else config.total,
        "precision": precision,
        "decoding": DECODING,
        "train": sets.train.digest(),
        "test": sets.test.digest(),
        "synthetic": _used(sets.synthetic),
        "unscreened": {name: images.digest() for name, images in sets.unscreened.items()} or None,
        "arms": _arms(config, sets),
        "folds": division(config),
        "left_over": config.left_over if config.shots else None,
        # More of them would be another search, after its test images have been seen.
        "trials": config.trials if config.search else None,
        "hours": config.hours if config.search else None,
    }


def _arms(config: Evaluate, sets: Sets) -> dict[str, Any] | None:
    if sets.base is None:
        return None
    return protocol(sets.base, config.arm_steps, config.arm_prompt, (*sets.train.photos, *sets.test.photos))


def _used(images: ImageSet) -> str | None:
    return images.digest() if len(images) else None
