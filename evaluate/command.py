"""`python -m evaluate`: check, decode, run what is missing, report."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

from classify.sets import parts
from evaluate import fidelity, report, table
from evaluate import records as lines
from evaluate.config import Evaluate
from evaluate.experiment import Experiment, Pixels, Run
from evaluate.ratios import Mixture, mix, parse, require_enough
from evaluate.reference import FRUIT
from evaluate.sets import Sets, generator_notes, load
from evaluate.statistics import summarise
from orchard import cli, folders, run
from orchard.images import ImageSet, sha256
from orchard.networks import build, require_name
from orchard.terminal import bar, say

FIDELITY = "fidelity.json"
SAME = ("model", "steps", "batch_size", "learning_rate", "flip", "validation")
VALIDATION = {
    "none": "all real training images take part, none is held out",
    "real": "validation images come from the real training split, drawn anew with each seed",
}


def evaluate(config: Evaluate) -> None:
    """Run the command."""
    config.require_valid()
    require_name(config.model)
    shares = parse(config.ratios)
    sets = load(config, shares)
    runs = plan(config, sets, shares)
    device = run.processes().device
    dtype = run.torch_dtype(config.precision, device)
    console = Console()
    _describe(console, config, sets, runs, run.dtype_name(dtype))
    if config.dry_run:
        return
    # A network that cannot take the size says so here, before anything is written.
    build(config.model, len(sets.train.classes), sets.sizes.size, config.seed)
    pixels = Pixels((sets.train, sets.test, sets.synthetic), sets.sizes)
    run.writable(config.output)
    lines.require_same(config.output, _identity(config, sets, run.dtype_name(dtype)))
    done = {lines.key(record) for record in lines.read(config.output)}
    experiment = Experiment(
        config=config,
        train=sets.train,
        test=sets.test,
        synthetic=sets.synthetic,
        pixels=pixels,
        device=device,
        dtype=dtype,
    )
    _run_all(experiment, [r for r in runs if r.key not in done])
    _report(console, config, sets)


def plan(config: Evaluate, sets: Sets, shares: Sequence[float]) -> list[Run]:
    """Every run of the sweep, seed after seed, so that a stopped sweep has all arms of its first seeds."""
    seeds = range(config.seed, config.seed + config.seeds)
    runs = []
    for seed in seeds:
        rest, _ = parts(sets.train, config.validation, seed)
        mixtures = [mix(config.design, share, rest.counts(), config.total) for share in shares]
        runs += [Run(mixture=mixture, seed=seed, design=config.design) for mixture in mixtures]
    if any(sum(r.mixture.synthetic.values()) for r in runs):
        require_enough([r.mixture for r in runs], sets.synthetic.counts(), config.synthetic)
    return runs


def _describe(console: Console, config: Evaluate, sets: Sets, runs: Sequence[Run], precision: str) -> None:
    through = f" by way of {sets.sizes.through} px" if sets.sizes.through else ""
    mixtures = {r.mixture.ratio: r.mixture for r in runs}.values()
    for line in (
        f"real set  {folders.describe(sets.train)}; {folders.describe(sets.test)}",
        *(f"note      {note}" for note in sets.train.notes),
        f"synthetic {folders.describe(sets.synthetic) if len(sets.synthetic) else 'not needed'}",
        *(f"note      {note}" for note in generator_notes(sets)),
        f"design    {config.design}; {VALIDATION[config.validation]}",
        *(f"mixture   {_counted(mixture)}" for mixture in mixtures),
        f"training  {config.model} at {sets.sizes.size} px{through}, {config.steps} steps of "
        f"{config.batch_size}, {config.seeds} seeds, precision {precision}",
        f"output    {config.output}",
    ):
        say(console, line)


def _counted(mixture: Mixture) -> str:
    real, synthetic = sum(mixture.real.values()), sum(mixture.synthetic.values())
    return f"{mixture.ratio:.0%} real: {real} real + {synthetic} synthetic images"


def _identity(config: Evaluate, sets: Sets, precision: str) -> dict[str, Any]:
    """What must be the same for two runs to belong to one experiment."""
    return {
        **{name: getattr(config, name) for name in SAME},
        "size": sets.sizes.size,
        "through": sets.sizes.through,
        "total": config.total,
        "precision": precision,
        "train": _digest(sets.train),
        "test": _digest(sets.test),
        "synthetic": _digest(sets.synthetic),
    }


def _digest(images: ImageSet) -> str:
    return sha256("\n".join(sorted(f"{p.label}:{p.sha256}" for p in images.photos)).encode())


def _run_all(experiment: Experiment, runs: Sequence[Run]) -> None:
    config = experiment.config
    if not runs:
        return
    with bar("evaluating", len(runs) * config.steps, unit="steps") as advance:
        for record in experiment.records(
            runs, lambda title, step: advance(1, f"{title}, loss {step.loss:.3f}")
        ):
            lines.append(config.output, record)


def _report(console: Console, config: Evaluate, sets: Sets) -> None:
    records = lines.read(config.output)
    reference = FRUIT if config.data == "fruit" else None
    copies = _copies(config, sets)
    context = report.Context(
        title=sets.train.name,
        command=shlex.join(["python", "-m", "evaluate", *sys.argv[1:]]),
        notes=sets.train.notes,
        generator=generator_notes(sets),
        copies=copies,
        configuration=cli.describe(config) | {"size": sets.sizes.size, "through": sets.sizes.through},
        versions=run.versions(),
        commit=run.git_commit(),
        sheet=_sheet(sets),
        provenance={key: sets.manifest[key] for key in ("arguments", "rows") if key in sets.manifest},
        reference=reference,
    )
    page = report.write(records, context, config.output / "report.html")
    table.write_csv(records, config.output / "metrics.csv")
    table.print_table(summarise(records), reference, console)
    for note in (*sets.train.notes, *generator_notes(sets)):
        say(console, f"note: {note}")
    if copies:
        say(console, f"copies: {copies}")
    say(console, f"wrote {config.output / lines.RECORDS}, metrics.csv")
    say(console, f"report: {page.resolve()}")


def _copies(config: Evaluate, sets: Sets) -> str:
    """Write how many synthetic images are near copies of real ones; say it in a sentence."""
    if not len(sets.synthetic):
        return ""
    found = fidelity.measure(sets.synthetic, sets.train, sets.test)
    run.write_json(config.output / FIDELITY, found)
    return fidelity.sentence(found)


def _sheet(sets: Sets) -> dict[str, dict[str, list[np.ndarray]]]:
    """A few real and synthetic images a class, as the classifier sees them."""

    def some(images: ImageSet, name: str) -> list[np.ndarray]:
        photos = [photo for photo in images.photos if photo.label == name][: report.SHEET]
        return list(sets.sizes.pixels(photos))

    return {
        name: {"real": some(sets.train, name), "synthetic": some(sets.synthetic, name)}
        for name in sets.train.classes
    }
