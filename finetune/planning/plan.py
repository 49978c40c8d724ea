"""What a run is going to do: everything that can be found out and refused before a weight is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from finetune.config import TrainLora
from finetune.context import Job
from finetune.data import training_data, training_set
from finetune.data.training_data import prompt_of
from finetune.models import targets
from finetune.models.targets import Targets
from finetune.outputs import logs, snippets
from finetune.planning import preflight, resume
from finetune.planning.devices import arithmetic_of, processes_of, require_jobs
from finetune.planning.preflight import Preflight
from finetune.planning.resume import Rest
from finetune.trainer import identity
from finetune.training import objective, optimizers
from orchard import prompt_template
from orchard.adapters import layers, lycoris
from orchard.bases import bases, prompt_embeds
from orchard.bases.bases import Base
from orchard.datasets import folders, sources
from orchard.files import atomic, checked_json
from orchard.images.images import ImageSet

MOST_WARNINGS = 5
"""Prompts that are too long and named; of more the number."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that nothing stands against."""

    base: Base
    real: ImageSet
    """The photos it may see."""
    targets: Targets
    jobs: Sequence[Job]
    """All of them, the finished ones too."""
    identities: Mapping[str, dict[str, Any]]
    """What each job's adapter depends on, by its name."""
    rest: Rest
    checked: Preflight

    @property
    def left(self) -> list[Job]:
        """The jobs that are not finished."""
        return [job for job in self.jobs if job.name not in self.rest.done]


def make(config: TrainLora, accelerator: Accelerator, dtype: torch.dtype) -> Plan:
    """Read the set and the files of the base, and check all that can be checked without its weights.

    Raises:
        UserError: whatever would stop the run later on.
    """
    optimizers.find(config.optimizer, config.learning_rate)
    logs.require_tracker(config.log_with)
    with accelerator.main_process_first():  # it downloads what the others find
        everything = sources.load(config.data, config.classes)
        base = bases.resolve(config.base)
    objective.require_fit(config, base)
    layers.require_loadable(base)
    skeleton = layers.skeleton(base.folder)
    chosen = targets.resolve(config.targets, skeleton, base.family, trains_text=config.train_text_encoder)
    real, sizes = training_set.of(everything, config)
    jobs = _jobs(config, real)
    require_jobs(accelerator, len(jobs))
    for job in jobs:
        training_data.require_fit(config, job)
    arithmetic = arithmetic_of(accelerator, dtype)
    precision = arithmetic["precision"]
    identities = {job.name: identity(config, base, job, arithmetic) for job in jobs}
    rest = resume.find(config, jobs, identities)
    left = [job for job in jobs if job.name not in rest.done]
    return Plan(
        base=base,
        real=real,
        targets=chosen,
        jobs=jobs,
        identities=identities,
        rest=rest,
        checked=preflight.check(config, base, chosen, left, sizes, precision, accelerator.device),
    )


def _jobs(config: TrainLora, real: ImageSet) -> list[Job]:
    classes = config.classes or real.classes
    atomic.require_distinct_files(real.classes)
    if config.joint:
        return [Job(name="joint", classes=tuple(sorted(classes)), photos=real)]
    return [
        Job(
            name=atomic.file_name(name),
            classes=(name,),
            photos=real.keep(p for p in real.photos if p.label == name),
        )
        for name in classes
    ]


def lines(config: TrainLora, plan: Plan, accelerator: Accelerator) -> list[str]:
    """The plan in words, a line a fact."""
    base, rest = plan.base, plan.rest
    return [
        f"real set  {folders.describe(plan.real)}",
        *(f"note      {note}" for note in plan.real.notes),
        *(
            f"warning   {job.name} has one image: the adapter can only repeat it"
            for job in plan.jobs
            if len(job.photos) == 1
        ),
        f"base      {base.title} ({base.family}, {base.resolution} px, {base.prediction_type})",
        f"adapters  {', '.join(job.name for job in plan.jobs)}: {config.method} of rank {config.rank} on "
        f"{', '.join(config.targets)}{' and the text encoders' if config.train_text_encoder else ''}, "
        f"{config.steps} steps of {_images_a_step(config)} images",
        *(f"finished  {name}" for name in sorted(rest.done)),
        *(f"passed by {line}" for line in rest.broken),
        *(
            f"resuming  {name} after step {start.step} ({start.folder})"
            for name, start in rest.starts.items()
        ),
        _caption_line(config, plan.real),
        *_prior_line(config),
        *_cut_lines(config, plan),
        *_export_line(config, base),
        f"output    {config.output}",
        *plan.checked.lines,
        f"processes {processes_of(accelerator)}, precision {plan.checked.precision}",
    ]


def _images_a_step(config: TrainLora) -> str:
    if config.accumulation == 1:
        return str(config.batch_size)
    return f"{config.accumulation} x {config.batch_size}"


def _caption_line(config: TrainLora, real: ImageSet) -> str:
    own = sum(bool(photo.text) for photo in real.photos)
    rest = "" if own == len(real) else f", the others take `{config.prompt}`"
    return f"captions  {own} of {len(real)} photos have their own{rest}"


def _cut_lines(config: TrainLora, plan: Plan) -> list[str]:
    """What the text encoders would not see, by whose it is."""
    whose = {prompt_of(p, config.prompt): f"the caption of {p.path}" for p in plan.real.photos}
    filled = [prompt_template.fill(config.prompt, p.label) for p in plan.real.photos if not p.text]
    if config.prior_weight:
        filled += [
            prompt_template.fill(config.prior_prompt, name) for job in plan.jobs for name in job.classes
        ]
    whose |= {prompt: f"prompt {prompt!r}" for prompt in filled}
    cut = prompt_embeds.cut(plan.base, whose)
    lines = [
        f"warning   {whose[prompt]} is too long, the text encoder will not see {checked_json.shown(words)}"
        for prompt, words in list(cut.items())[:MOST_WARNINGS]
    ]
    rest = len(cut) - len(lines)
    return [*lines, f"warning   and {rest} more are too long"] if rest else lines


def _export_line(config: TrainLora, base: Base) -> list[str]:
    """Which tools the names of kohya are for, where that is not the usual."""
    named = config.export == "kohya" or config.method in lycoris.METHODS
    if not named or base.family != "sd3":
        return []
    tools = " and ".join(snippets.interfaces(config.method, base.family))
    return [f"export    kohya's names of SD 3 are for {tools}; WebUI and kohya's scripts do not read them"]


def _prior_line(config: TrainLora) -> list[str]:
    if not config.prior_weight:
        return []
    pictures = f"{config.prior_count} of `{config.prior_prompt}` a class"
    return [f"prior     {pictures}, weight {config.prior_weight:g}"]
