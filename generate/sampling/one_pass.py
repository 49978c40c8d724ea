"""Images from a GAN or VAE: one pass of its network, each row by its own seed and class."""

from collections.abc import Generator, Iterable, Sequence

import torch
from PIL import Image

from generate.planning.plan import Row
from generate.planning.trained import Trained
from orchard.classifiers.predict import autocast
from orchard.generators import files
from orchard.generators.decoder import noise, to_pixels


class OnePassSampler:
    """Samples as `generate.sampling.sampler.Sampler` does, with nothing to retry."""

    def __init__(
        self,
        source: Trained,
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.network = files.load(source.path, source.record, device)
        self.classes = source.record.classes
        self.batch_size, self.device, self.dtype = batch_size, device, dtype

    def sample(self, blocks: Iterable[Sequence[Row]]) -> Generator[tuple[Row, Image.Image]]:
        """One image a row, in order, from batches of rows."""
        for block in blocks:
            # Short batches are filled up, since equal shapes give equal pixels.
            rows = [*block, *[block[-1]] * (self.batch_size - len(block))]
            latents = noise(self.network.latent, [row.seed for row in rows]).to(self.device)
            labels = torch.tensor([self.classes.index(row.label) for row in rows], device=self.device)
            with torch.inference_mode(), autocast(self.device, self.dtype):
                pixels = to_pixels(self.network(latents, labels)).numpy()
            for row, picture in zip(block, pixels, strict=False):
                yield row, Image.fromarray(picture)
