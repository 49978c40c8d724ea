"""`python -m evaluate`: check, decode, run what is missing, report."""

from typing import Any

from rich.console import Console

from evaluate import describe, publish, records
from evaluate.config import Evaluate
from evaluate.experiment import Experiment, Pixels
from evaluate.plan import plan
from evaluate.ratios import parse
from evaluate.sets import Sets, load
from evaluate.sweep import Outcome, sweep
from orchard import run
from orchard.images import ImageSet
from orchard.networks import build, require_name
from orchard.terminal import say

SAME = ("model", "pretrained", "steps", "batch_size", "learning_rate", "flip", "augmentation", "validation")
FAILED = 1
"""Exit code when some runs failed; 2 is for what a user can mend before any work."""


def evaluate(config: Evaluate) -> None:
    """Run the command."""
    config.require_valid()
    require_name(config.model)
    shares = parse(config.ratios, config.design)
    state = run.processes()
    dtype = run.torch_dtype(config.precision, state.device)
    precision = run.dtype_name(dtype)
    with state.main_process_first():  # it downloads what the others find
        sets = load(config, shares)
    runs = plan(config, sets, shares, precision)
    console = Console(quiet=not state.is_main_process)
    describe.plan(console, config, sets, runs, precision, state.num_processes)
    if config.dry_run:
        return
    # A network that cannot take the size or the weights says so here, before anything is written.
    build(config.model, len(sets.train.classes), sets.sizes.size, config.seed, config.pretrained)
    pixels = Pixels(sets.sizes)
    for images in (sets.train, sets.test, sets.synthetic, sets.untuned, *sets.external.values()):
        pixels.add(images.photos)
    run.writable(config.output)
    with state.main_process_first():
        records.require_same(config.output, _identity(config, sets, precision))
        done = {records.key(record) for record in records.read(config.output)}
    state.wait_for_everyone()  # until each has seen the records as they were
    experiment = Experiment(
        classes=sets.train.classes,
        external=sets.external,
        firsts={one.arm_key: one for one in reversed(runs)},
        pixels=pixels,
        device=state.device,
        dtype=dtype,
    )
    outcome = sweep(experiment, [one for one in runs if one.key not in done], config.output, state)
    if state.is_main_process:
        _finish(console, config, sets, outcome)
    state.destroy_process_group()
    if state.is_main_process and outcome.failures:
        raise SystemExit(FAILED)


def _finish(console: Console, config: Evaluate, sets: Sets, outcome: Outcome) -> None:
    publish.publish(console, config, sets)
    if outcome.seconds:
        part = outcome.seconds_network / outcome.seconds
        say(console, f"classifiers took {outcome.seconds:.0f} s, {part:.0%} of it in the network")
    for line in outcome.failures:
        say(console, f"failed: {line}")
    if outcome.failures:
        say(console, f"{len(outcome.failures)} runs have no record; the same command tries them again")


def _identity(config: Evaluate, sets: Sets, precision: str) -> dict[str, Any]:
    """What must be the same for two runs to belong to one experiment; None where it plays no part."""
    own = config.owns_generators
    return {
        **{name: getattr(config, name) for name in SAME},
        "size": sets.sizes.size,
        "through": sets.sizes.through,
        "total": None if own else config.total,
        "precision": precision,
        "train": sets.train.digest(),
        "test": sets.test.digest(),
        "synthetic": _used(sets.synthetic),
        "untuned": _used(sets.untuned),
        "external": {name: images.digest() for name, images in sets.external.items()},
        "arms": {"base": sets.base.digest, "steps": config.arm_steps} if sets.base else None,
        "folds": config.folds or None,
    }


def _used(images: ImageSet) -> str | None:
    return images.digest() if len(images) else None
