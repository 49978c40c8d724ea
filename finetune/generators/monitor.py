"""What one can see of a generator in training: its log, previews, the curve and a sheet of samples."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from PIL import Image

from finetune.context import Job
from finetune.generators.config import TrainGenerator
from finetune.generators.learner import Learner
from finetune.outputs import logs
from finetune.outputs.logs import Log
from finetune.outputs.monitor import captioned, preview_path, sheet_paths, write
from orchard.generators.decoder import noise, to_pixels
from orchard.images.splits import stable_hash

COUNT = 8
"""Samples of each class."""


class Monitor:
    """Logs and previews of one generator. Changes nothing of its training."""

    def __init__(self, config: TrainGenerator, job: Job, learner: Learner, accelerator: Accelerator) -> None:
        self.config, self.job, self.learner, self.accelerator = config, job, learner, accelerator
        self.log = Log(config, job.name, accelerator, job.steps_done)

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Log a step; write a preview when it is due."""
        self.log.step(number, values)
        due = self.config.preview_every and number % self.config.preview_every == 0
        if due and self.accelerator.is_main_process:
            sheet = self._samples()
            write(sheet, preview_path(self.config.output, self.job.name, number))
            self.log.picture(number, f"preview/{self.job.name}", sheet)

    def write_sheets(self) -> None:
        """Write the loss curve, and samples of the generator that is kept."""
        if self.config.sheets:
            curve, samples = sheet_paths(self.job.path(self.config.output))
            logs.draw_losses(self.log.path, curve, self.job.name, self.learner.curves)
            write(self._samples(), samples)

    @torch.no_grad()
    def _samples(self) -> Image.Image:
        """`COUNT` images of each class, at seeds that never change."""
        network, rows = self.learner.average, {}
        for place, label in enumerate(self.job.classes):
            seeds = [stable_hash("preview", self.config.seed, label, number) for number in range(COUNT)]
            latents = noise(network.latent, seeds).to(self.accelerator.device)
            images = network(latents, torch.full((COUNT,), place, device=latents.device))
            rows[label] = [Image.fromarray(pixels) for pixels in to_pixels(images).numpy()]
        return captioned(rows)
