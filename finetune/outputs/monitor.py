"""What one can see of an adapter in training: its log, losses on held-out photos, sheets of samples."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from finetune.context import Job, RunContext
from finetune.models import words
from finetune.models.methods import Method
from finetune.models.sampling import Settings, sample
from finetune.outputs import logs
from finetune.outputs.logs import Log
from finetune.step.batches import EncodedDataset
from finetune.training import validation
from finetune.training.interrupt import SamplingStoppedError
from finetune.training.learner import Learner
from finetune.training.loop import Step
from orchard import prompt_template
from orchard.files import atomic
from orchard.files.atomic import whole_file
from orchard.images.splits import stable_hash

FOLDER = "previews"
COUNT = 4
"""Samples of each class."""
GAP = 4
"""White pixels between images."""

Samples = Mapping[str, Sequence[Image.Image]]
"""Images by class."""


class Monitor:
    """Logs, validation losses and previews of one adapter. Changes nothing of its training."""

    def __init__(self, run: RunContext, job: Job, held_out: EncodedDataset | None) -> None:
        self.run, self.job, self.held_out = run, job, held_out
        self.log = Log(run.config, job.name, run.accelerator, job.steps_done)

    def step(self, learner: Learner, step: Step) -> None:
        """Log a step; compute the validation loss and write previews when they are due."""
        run, number = self.run, step.index + 1
        values = {"loss": step.loss, "learning_rate": step.learning_rate}
        if self.held_out is not None and number % run.config.validate_every == 0:
            with learner.for_inference(), run.accelerator.autocast():
                values["validation_loss"] = validation.loss(
                    run.family, learner.network, self.held_out, run.config.seed
                )
        self.log.step(number, values)
        if run.config.preview_every and number % run.config.preview_every == 0:
            with learner.for_inference(), suppress(SamplingStoppedError):
                self._show(sample_classes(run, self.job), number)

    def _show(self, samples: Samples, number: int) -> None:
        if not self.run.accelerator.is_main_process:
            return
        for label, images in samples.items():
            sheet = row(images)
            write(sheet, preview_path(self.run.config.output, label, number))
            self.log.picture(number, f"preview/{label}", sheet)

    def write_sheets(self, method: Method) -> None:
        """Write the loss curve, and samples without and with the adapter as the network has it now."""
        run = self.run
        curve, sheet = sheet_paths(self.job.path(run.config.output))
        if run.accelerator.is_main_process and self.job.privacy:
            curve.unlink(missing_ok=True)  # of an earlier run; losses are not covered
        if not run.config.sheets:
            return
        if run.accelerator.is_main_process and not self.job.privacy:
            logs.draw_losses(self.log.path, curve, self.job.name)
        try:
            with method.base_alone(run.family):
                base_alone = sample_classes(run, self.job, plain=True)
            with_adapter = sample_classes(run, self.job)
        except SamplingStoppedError:
            sheet.unlink(missing_ok=True)  # of an earlier run, which had another adapter
            print(f"{sheet.name}: left out, since the run was asked to stop", file=sys.stderr)
            return
        if run.accelerator.is_main_process:
            write(without_and_with(base_alone, with_adapter), sheet)


def sheet_paths(adapter: Path) -> tuple[Path, Path]:
    """Beside an adapter: its loss curve, and samples without and with it."""
    name = adapter.name.removesuffix(".safetensors")
    return adapter.with_name(f"{name}-loss.png"), adapter.with_name(f"{name}-samples.png")


def preview_path(output: Path, label: str, step: int) -> Path:
    """Where the preview of a class after ``step`` steps is written."""
    return output / FOLDER / f"{atomic.file_name(label)}-{step:06d}.png"


def sample_classes(run: RunContext, job: Job, *, plain: bool = False) -> Samples:
    """`COUNT` images of each class of the job, at seeds that never change, from the pipeline as it stands.

    ``plain`` asks for classes by their names, also where they have words of their own.

    The main process samples and the others get nothing, unless the network is sharded over all of them.

    Raises:
        SamplingStoppedError: a signal came; sampling from a sharded network is not stopped.
    """
    if not (run.accelerator.is_main_process or run.sharded):
        return {}
    after_step: Callable[[], None] = (lambda: None) if run.sharded else run.interrupt.stop_sampling
    # Where the models are in float32 the other parts of the pipeline may not be.
    precision = run.accelerator.autocast() if job.whole else nullcontext()
    config, samples = run.config, {}
    with precision:
        for label in job.classes:
            seeds = [stable_hash("preview", config.seed, label, number) for number in range(COUNT)]
            prompt = prompt_template.fill(config.template, label) if plain else words.prompt(config, label)
            how = Settings.of(run.plan.base, prompt, config.clip_skip, run.family.words)
            samples[label] = sample(run.family, prompt, seeds, how, after_step=after_step)
    return samples


def row(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size side by side."""
    width, height = images[0].size
    strip = Image.new("RGB", (len(images) * (width + GAP) - GAP, height), "white")
    for column, image in enumerate(images):
        strip.paste(image, (column * (width + GAP), 0))
    return strip


def captioned(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Rows of images under each other, each below its name."""
    strips = {name: row(images) for name, images in rows.items()}
    font = ImageFont.truetype(_font(), size=max(11, next(iter(strips.values())).height // 16))
    line = sum(font.getmetrics()) + GAP
    width = max(max(strip.width, round(font.getlength(name)) + GAP) for name, strip in strips.items())
    height = sum(line + strip.height + GAP for strip in strips.values())
    sheet, top = Image.new("RGB", (width, height), "white"), 0
    for name, strip in strips.items():
        ImageDraw.Draw(sheet).text((GAP // 2, top), name, fill="black", font=font)
        sheet.paste(strip, (0, top + line))
        top += line + strip.height + GAP
    return sheet


def _font() -> str:
    """DejaVu Sans, which comes with matplotlib and knows more scripts than Pillow's own."""
    from matplotlib import font_manager

    return font_manager.findfont("DejaVu Sans")


def without_and_with(base_alone: Samples, with_adapter: Samples) -> Image.Image:
    """Two rows per class: the base alone, and with the adapter, at equal seeds."""
    rows = {}
    for label, images in with_adapter.items():
        rows[f"{label}: base alone"] = base_alone[label]
        rows[f"{label}: with adapter"] = images
    return captioned(rows)


def write(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as aside:
        image.save(aside, "PNG", optimize=True)
