"""What one can see of an adapter in training: its log, losses on held-out photos, sheets of samples."""

import sys
from contextlib import suppress
from pathlib import Path

from finetune.context import Job, Setup
from finetune.data.training_data import Material
from finetune.models import trained_text_encoders
from finetune.outputs import logs, previews
from finetune.outputs.logs import Log
from finetune.training import validation
from finetune.training.interrupt import BrokenOffError
from finetune.training.learner import Learner
from finetune.training.loop import Step


class Watch:
    """The eyes on one adapter. Nothing here changes how it is trained."""

    def __init__(self, setup: Setup, job: Job, material: Material, done: int) -> None:
        """Made before any LoRA is in the base; ``done`` steps were taken by an earlier run."""
        self.setup, self.job, self.held_out = setup, job, material.held_out
        self.log = Log(setup.config, job.name, setup.accelerator, done)
        self.base_alone = previews.sample_classes(setup, job) if setup.config.sheets else {}

    def step(self, learner: Learner, step: Step) -> None:
        """Log a step; score held-out photos and write previews where they are due."""
        setup, number = self.setup, step.index + 1
        values = {"loss": step.loss, "learning_rate": step.learning_rate}
        if self.held_out is not None and number % setup.config.validate_every == 0:
            with learner.in_use(), setup.accelerator.autocast():
                values["validation_loss"] = validation.loss(setup.family, self.held_out, setup.config.seed)
        self.log.step(number, values)
        if setup.config.preview_every and number % setup.config.preview_every == 0:
            encoders, device = setup.family.frozen_text_encoders, setup.accelerator.device
            with learner.in_use(), trained_text_encoders.at(encoders, device), suppress(BrokenOffError):
                self._show(previews.sample_classes(setup, self.job), number)

    def _show(self, samples: previews.Samples, number: int) -> None:
        if not self.setup.accelerator.is_main_process:
            return
        for label, images in samples.items():
            sheet = previews.row(images)
            previews.write(sheet, previews.path_of(self.setup.config.output, label, number))
            self.log.picture(number, f"preview/{label}", sheet)

    def finish(self) -> None:
        """Write the loss curve and the samples before and after, with the final weights in the network."""
        if not self.setup.config.sheets:
            return
        loss, both = sheet_paths(self.job.path(self.setup.config.output))
        if self.setup.accelerator.is_main_process:
            logs.write(self.log.path, loss, self.job.name)
        try:
            samples = previews.sample_classes(self.setup, self.job)
        except BrokenOffError:
            both.unlink(missing_ok=True)  # of an earlier run, which had another adapter
            print(f"{both.name}: left out, since the run was asked to stop", file=sys.stderr)
            return
        if self.setup.accelerator.is_main_process:
            previews.write(previews.before_and_after(self.base_alone, samples), both)


def sheet_paths(adapter: Path) -> tuple[Path, Path]:
    """Beside an adapter: its loss curve, and samples before and after."""
    return adapter.with_name(f"{adapter.stem}-loss.png"), adapter.with_name(f"{adapter.stem}-samples.png")
