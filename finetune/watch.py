"""What one can see of an adapter in training: its log, losses on held-out photos, sheets of samples."""

from pathlib import Path

from finetune import curve, previews, resting, validation
from finetune.learner import Learner
from finetune.logs import Log
from finetune.material import Material
from finetune.setup import Job, Setup
from finetune.training import Step


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
            with learner.in_use(), resting.at(encoders, device):
                samples = previews.sample_classes(setup, self.job)
            self._show(samples, number)

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
        samples = previews.sample_classes(self.setup, self.job)
        if self.setup.accelerator.is_main_process:
            loss, both = sheet_paths(self.job.path(self.setup.config.output))
            curve.write(self.log.path, loss, self.job.name)
            previews.write(previews.before_and_after(self.base_alone, samples), both)


def sheet_paths(adapter: Path) -> tuple[Path, Path]:
    """Beside an adapter: its loss curve, and samples before and after."""
    return adapter.with_name(f"{adapter.stem}-loss.png"), adapter.with_name(f"{adapter.stem}-samples.png")
