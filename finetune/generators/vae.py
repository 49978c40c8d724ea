"""A conditional VAE (Kingma & Welling 2014; Sohn et al. 2015) with β (Higgins et al. 2017).

Its images are compared by pixels and by edges of every scale, which the published perceptual losses do by a
network that would have to be downloaded: the Laplacian pyramid of Bojanowski et al. 2018.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from finetune.generators.batches import Batch
from finetune.generators.config import TrainVae
from finetune.generators.learner import Learner, adam, downsampling
from orchard.generators.decoder import START, Decoder, widths

BETAS = (0.9, 0.99)


class Vae(nn.Module):
    """An encoder before the decoder."""

    def __init__(self, decoder: Decoder, *, classes: int, size: int, width: int) -> None:
        super().__init__()
        channels = widths(size, width)[-1] * START**2
        self.features = downsampling(size, width)
        self.classes = nn.Embedding(classes, channels)
        self.posterior = nn.Linear(channels, 2 * decoder.latent)
        self.decoder = decoder

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) images, (B,) classes, (B, latent) noise -> images again, mean and log variance."""
        found = self.features(images).flatten(1) + self.classes(labels)
        mean, log_variance = self.posterior(found).float().chunk(2, dim=1)
        return self.decoder(mean + noise * (log_variance / 2).exp(), labels), mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B, Z) each -> Kullback-Leibler divergence from the standard normal, in nats: the mean over B."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()


def pyramid_distance(images: Tensor, others: Tensor) -> Tensor:
    """(B, C, S, S) each -> the mean differences of the levels of their Laplacian pyramids, summed.

    Bojanowski et al. 2018, in the mean over values instead of their sum; the coarsest level is the image.
    """
    left, total = images - others, images.new_zeros(())
    while left.shape[-1] > START:
        coarse = functional.avg_pool2d(left, 2)
        fine = functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        total, left = total + (left - fine).abs().mean(), coarse
    return total + left.abs().mean()


class VaeLearner(Learner):
    """Encoder and decoder in training."""

    curves: ClassVar = {"loss": "loss, as weighted", "divergence": "divergence from the prior, nats"}

    def __init__(self, config: TrainVae, classes: Sequence[str], accelerator: Accelerator) -> None:
        sizes = {"classes": len(classes), "size": config.size, "width": config.width}
        super().__init__(Decoder(**sizes, latent=config.latent), config.ema_decay, accelerator)
        self.beta, self.perceptual_weight = config.beta, config.perceptual_weight
        network = Vae(self.decoder, **sizes)
        optimizer = adam(network, config.learning_rate, BETAS)
        self.networks["vae"], self.optimizers["vae"] = accelerator.prepare(network, optimizer)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on both; the divergence is weighted by β over the number of pixel values."""
        noise = torch.randn(len(batch.labels), self.decoder.latent, generator=batch.generator)
        with self.accelerator.autocast():
            images, mean, log_variance = self.networks["vae"](
                batch.pixels, batch.labels, noise.to(self.accelerator.device)
            )
        nats = divergence(mean, log_variance)
        loss = (images - batch.pixels).abs().mean() + self.beta * nats / batch.pixels[0].numel()
        loss = loss + self.perceptual_weight * pyramid_distance(images, batch.pixels)
        self.accelerator.backward(loss)
        self.optimizers["vae"].step()
        self.optimizers["vae"].zero_grad()
        return {"loss": loss, "divergence": nats}
