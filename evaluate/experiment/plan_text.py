"""The plan of an experiment, as it is printed before anything runs."""

from collections.abc import Sequence

from rich.console import Console

from evaluate.config import Evaluate
from evaluate.experiment.arms import Run
from evaluate.experiment.image_sets import Sets, generator_notes
from evaluate.experiment.own_generator import FROM_NOTHING
from evaluate.generators import GENERATORS, GIVEN
from orchard.cli.terminal import say
from orchard.datasets import folders

VALIDATION = {
    "none": "all real training images take part, none is held out",
    "mixed": "validation images come from an arm's real training images, and as many from its synthetic ones",
    "real": "validation images come from an arm's real training images, drawn anew with each seed",
}
LEFT_OVER = "the training images that an arm leaves over, which nothing in its making has seen"
AGAIN = "to be scored on all external sets: their classifiers are not kept, so they are trained once more"


def plan(
    console: Console,
    config: Evaluate,
    sets: Sets,
    runs: Sequence[Run],
    precision: str,
    processes: int,
    anew: int = 0,
) -> None:
    """Print the sets, what their generators have seen, every arm once, and how classifiers are trained.

    ``anew`` runs are finished and trained again.
    """
    through = f", by way of {sets.sizes.through} px" if sets.sizes.through else ""
    arms = {run.arm_key: run for run in reversed(runs)}
    for line in (
        f"real set  {folders.describe(sets.train)}; {folders.describe(sets.test)}",
        *(f"note      {note}" for note in sets.train.notes),
        f"synthetic {_synthetic(config, sets)}",
        *(f"screen    left out in an arm: {name}" for name in sets.unscreened),
        *(f"external  {folders.describe(images)}" for images in sets.external.values()),
        *(f"note      {note}" for note in generator_notes(config, sets)),
        *([f"scored    on the test split and {LEFT_OVER}"] if config.left_over else []),
        f"design    {runs[0].arm.design}; {VALIDATION[config.validation]}",
        *(f"arm       {_counted(run)}" for run in reversed(arms.values())),
        f"size      {sets.sizes.size} px{through}, after {sets.sized_by}",
        f"training  {config.model} at {sets.sizes.size} px, {config.steps} steps of {config.batch_size}, "
        f"{config.augmentation} augmentation, {len(runs)} runs, precision {precision}",
        *([f"again     {anew} finished runs, {AGAIN}"] if anew else []),
        f"processes {processes}, each takes whole arms with generators of their own, else single runs",
        f"output    {config.output}",
    ):
        say(console, line)


def _synthetic(config: Evaluate, sets: Sets) -> str:
    given = [folders.describe(sets.synthetic)] if len(sets.synthetic) else []
    own = [name for name in config.makers if name != GIVEN]
    if own:
        models = [name for name in own if GENERATORS[name].model]
        of_models = f", {config.arm_steps * FROM_NOTHING} of {' and '.join(models)}" if models else ""
        steps = f"{config.arm_steps} steps per adapter{of_models}"
        given.append(f"by {', '.join(own)} ({steps}), under {config.output}")
    return "; ".join(given) or "not needed"


def _counted(run: Run) -> str:
    mixture = run.arm.mixture
    synthetic = sum(mixture.synthetic.values())
    counts = f"{run.arm.title}: {len(run.real)} real + {synthetic} synthetic images"
    if not synthetic or round(100 * mixture.share) == round(100 * mixture.ratio):
        return counts
    return f"{counts}, {mixture.share:.1%} real: whole images, at least one of each class"
