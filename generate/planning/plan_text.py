"""What a run is going to do, in lines for people."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from generate.config import Generate
from generate.outputs import folder as folders
from generate.outputs.credentials import SIGNED_BY
from generate.outputs.folder import Task
from generate.planning.jobs import Diffusion, Job
from generate.planning.plan import ClassPlan, Row
from generate.planning.settings import usual_sampling
from generate.screening import choice
from orchard import decisions, shards
from orchard.bases import prompt_embeds
from orchard.cli.terminal import say

MOST_PROMPTS, MOST_WARNINGS, FIRST_ROWS = 12, 5, 3
CONTEXTS = {
    "shuffled": "those of all adapters, evenly, the same ones for every class",
    "own": "those of the class, as often as its training photos have them",
}


def describe(
    console: Console, config: Generate, folder: Path, planned: Sequence[Job], tasks: Sequence[Task]
) -> None:
    """Classes, sampler, screens and output; what will be cut of a prompt, what has changed since."""
    for job in planned:
        new = sum(task.lacking for task in tasks if task.job is job)
        prompts, steps = list(dict.fromkeys(job.plan.prompts)), job.header.arguments["steps"]
        said = repr(prompts[0]) + (f" and {len(prompts) - 1} others in turn" if len(prompts) > 1 else "")
        say(
            console,
            f"class     {job.label}: {job.plan.count} images{_candidates(job)}, {new} to sample; "
            f"{job.source.name}, prompt {said}, {steps} step{'s' if steps > 1 else ''}",
        )
        if new:
            for change in folders.changes(folder, job):
                there = f"rows that are there were made with {change}"
                say(console, f"note      {job.label}: {there}; what is new may differ slightly for it")
        if job.header.trained_on is None:
            unknown = "nobody is told which photos its adapter knows, test images or not"
            say(console, f"note      {job.label}: {unknown}")
        if isinstance(job.source, Diffusion):
            _warn_of_cuts(console, job.source, job.plan, prompts)
    steering = planned[0].plan.steering
    if isinstance(planned[0].source, Diffusion):
        _describe_sampler(console, config, planned[0].source, steering.guidance)
    if mode := planned[0].header.arguments.get("contexts"):
        say(console, f"contexts  {mode}: {CONTEXTS[mode]}")
    if config.image_guidance:
        say(console, f"guides    training images of {config.image_guidance}, strength {steering.strength}")
    for job in planned:
        if repaints := job.plan.repaints:
            arguments = job.header.arguments
            usual = " and then ".join(map(str, repaints.strengths))
            strength = steering.strength or usual
            said = f"{config.repaint}, mask {arguments['mask']}, strength {strength}; {repaints.said()}"
            say(console, f"repaint   {job.label}: {said}")
    say(console, f"screens   {_screens(planned[0])}")
    if by_hand := shards.reviewed(folder, [job.label for job in planned]):
        away = sum(row.is_rejected for row in by_hand)
        say(console, f"review    {folder / decisions.FILE}: a person rejects {away} images of these classes")
    if config.keep:
        say(console, f"keep      of {config.candidates} candidates {choice.SAID[config.keep]}")
    if signed_by := planned[0].header.arguments.get(SIGNED_BY):
        say(console, f"signed    by {signed_by}: Content Credentials in every image")
    say(console, f"output    {config.output}, {config.shard_size} images per shard")


def _describe_sampler(console: Console, config: Generate, source: Diffusion, guidance: object) -> None:
    say(console, f"sampler   {source.settings.scheduler}, guidance {guidance}{_away(config)}")
    usual = usual_sampling(config, source.base).source
    if usual and not (config.steps and config.guidance is not None and config.scheduler):
        say(console, f"usual     steps, guidance and scheduler that are not given are those of {usual}")


def _warn_of_cuts(console: Console, source: Diffusion, plan: ClassPlan, prompts: Sequence[str]) -> None:
    """Warnings about prompts that the text encoders truncate."""
    negative = [plan.steering.negative] if plan.steering.negative else []
    cut = prompt_embeds.cut(source.base, [*prompts, *negative], source.blend.words)
    for prompt, words in itertools.islice(cut.items(), MOST_WARNINGS):
        say(console, f"warning   prompt {prompt!r} is too long, the text encoder will not see {words!r}")
    if len(cut) > MOST_WARNINGS:
        say(console, f"warning   and {len(cut) - MOST_WARNINGS} more are too long")


def _away(config: Generate) -> str:
    """What guidance leads away from, where that is not the empty prompt."""
    found = [f"; away from {config.negative_prompt!r}"] if config.negative_prompt else []
    if config.contrast:
        found.append(f"; away from each other class in turn, weight {config.contrast:g}")
    return "".join(found)


def _candidates(job: Job) -> str:
    each = job.plan.candidates
    return f" of {job.plan.count * each} candidates" if each > 1 else ""


def _screens(job: Job) -> str:
    names = ", ".join(job.header.arguments["screens"])
    return f"{names}; rejected images are kept apart and replaced" if names else "none"


def processes(console: Console, number: int, precision: str) -> None:
    """Who does it, and in which arithmetic."""
    say(console, f"processes {number}, which share the batches; precision {precision}")


def rows(console: Console, planned: Sequence[Job]) -> None:
    """The plan itself: how often each prompt comes, and the first rows with their seeds."""
    for job in planned:
        used = +times(job.plan)  # a few rows do not reach every prompt
        for prompt, number in used.most_common(MOST_PROMPTS):
            say(console, f"prompt    {job.label}: {number} x {prompt!r}")
        if len(used) > MOST_PROMPTS:
            say(console, f"prompt    {job.label}: and {len(used) - MOST_PROMPTS} more")
        for index in range(min(FIRST_ROWS, job.plan.count)):
            row = job.plan.row(index)
            more = (f", from {row.guide.path}" if row.guide else "") + _led(job, row)
            say(console, f"row       {job.label} {index}: seed {row.seed}, prompt {row.prompt!r}{more}")


def _led(job: Job, row: Row) -> str:
    """What the row has of its own of all that leads it."""
    steering = job.plan.steering
    found = [f"guidance {row.guidance:.3g}"] if steering.guidance.is_wide else []
    if steering.strength and steering.strength.is_wide:
        found.append(f"strength {row.strength:.3g}")
    if row.other:
        found.append(f"away from {row.other!r}")
    return "".join(f", {one}" for one in found)


def times(plan: ClassPlan) -> Counter[str]:
    """How often each prompt is used."""
    whole, rest = divmod(plan.count, len(plan.prompts))
    found = Counter(dict.fromkeys(plan.prompts, 0))
    for place, prompt in enumerate(plan.prompts):
        found[prompt] += whole + (place < rest)
    return found
