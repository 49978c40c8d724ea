"""`python -m evaluate`: check, decode, run what is missing, report."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from classify.model import build, require_name
from classify.sets import parts
from evaluate import joined, witness
from evaluate import records as lines
from evaluate.config import Evaluate
from evaluate.experiment import Experiment, Pixels, Run
from evaluate.features import of_backbone
from evaluate.publish import publish
from evaluate.ratios import Mixture, mix, parse, require_enough
from evaluate.sets import Sets, generator_notes, load
from orchard import folders, run
from orchard.images import ImageSet, sha256
from orchard.terminal import bar, say

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
    # A network that cannot take the size, or is not there, says so here, before anything is written.
    build(config.model, len(sets.train.classes), sets.sizes.size, config.seed)
    if config.backbone:
        of_backbone(config.backbone, device)
    identity = _identity(config, sets, run.dtype_name(dtype))
    joined.require_alike(config.also, identity)
    pixels = Pixels((sets.train, sets.test, sets.synthetic), sets.sizes)
    run.writable(config.output)
    lines.require_same(config.output, identity)
    done = {lines.key(record) for record in lines.read(config.output)}
    experiment = Experiment(
        config=config,
        train=sets.train,
        test=sets.test,
        synthetic=sets.synthetic,
        pixels=pixels,
        device=device,
        dtype=dtype,
        on_fitted=partial(witness.offer, config, sets.train, sets.sizes),
    )
    _run_all(experiment, [r for r in runs if r.key not in done])
    publish(console, config, sets)


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
