"""A conditional GAN for a few hundred photos, of parts that are each published.

The generator of DCGAN with a norm for every class (`orchard.generators.decoder`); a discriminator under
spectral norm (Miyato et al. 2018) that sees the class by projection (Miyato & Koyama 2018); the hinge loss
(Lim & Ye 2017) with mode seeking (Mao et al. 2019); differentiable augmentation (Zhao et al. 2020); averaged
weights (Yazıcı et al. 2019).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from finetune.generators.batches import Batch
from finetune.generators.config import TrainGan
from finetune.generators.diffaugment import augment
from finetune.generators.learner import Learner, adam, downsampling
from orchard.generators.decoder import Decoder, widths

BETAS = (0.0, 0.99)
SEEKING, LEAST_DIFFERENCE = 0.1, 1e-5
"""Weight of `sameness`; without it a class comes to be one image."""
FASTER = 2
"""The discriminator's learning rate over the generator's (Heusel et al. 2017)."""


class Discriminator(nn.Module):
    """How real an image of a class looks; the largest singular value of each layer's weights is 1."""

    def __init__(self, *, classes: int, size: int, width: int) -> None:
        super().__init__()
        channels = widths(size, width)[-1]
        self.features = downsampling(size, width, spectral_norm)
        self.score = spectral_norm(nn.Linear(channels, 1))
        self.classes = spectral_norm(nn.Embedding(classes, channels))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] and (B,) classes -> (B,) scores, float32."""
        found = self.features(images).sum(dim=(2, 3))
        return (self.score(found)[:, 0] + (self.classes(labels) * found).sum(dim=1)).float()


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """(B,) scores of real images and of generated ones -> hinge loss: those beyond 1 and -1 count no more."""
    return functional.relu(1 - real).mean() + functional.relu(1 + generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """(B,) scores of generated images -> loss."""
    return -generated.mean()


def sameness(images: Tensor, latents: Tensor) -> Tensor:
    """(2B, 3, S, S) images of (2B, Z) latents, the halves of equal classes -> how alike they are.

    The difference of latents over that of images, the means over all pairs (Mao et al. 2019, eq. 4).
    """
    (one, other), (left, right) = images.chunk(2), latents.chunk(2)
    return (left - right).abs().mean() / ((one - other).abs().mean() + LEAST_DIFFERENCE)


class GanLearner(Learner):
    """Generator and discriminator in training, one step of each in turn."""

    curves: ClassVar = {"loss": "discriminator (hinge; 2 is a draw)", "generator_loss": "generator"}

    def __init__(self, config: TrainGan, classes: Sequence[str], accelerator: Accelerator) -> None:
        sizes = {"classes": len(classes), "size": config.size, "width": config.width}
        super().__init__(Decoder(**sizes, latent=config.latent), config.ema_decay, accelerator)
        self.policies = config.diffaugment
        bare = {"decoder": (self.decoder, 1), "discriminator": (Discriminator(**sizes), FASTER)}
        for name, (network, factor) in bare.items():
            optimizer = adam(network, config.learning_rate * factor, BETAS)
            self.networks[name], self.optimizers[name] = accelerator.prepare(network, optimizer)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the discriminator, then one of the generator on the same latents."""
        labels = batch.labels[: (len(batch.labels) + 1) // 2].repeat(2)  # two images a class, to compare
        latents = torch.randn(len(labels), self.decoder.latent, generator=batch.generator).to(labels.device)
        with self.accelerator.autocast():
            generated = self.networks["decoder"](latents, labels)
            both = torch.cat([batch.pixels, generated.detach()])
            seen = augment(both, self.policies, batch.generator)
            scores = self.networks["discriminator"](seen, torch.cat([batch.labels, labels]))
            loss = discriminator_loss(*scores.tensor_split([len(batch.labels)]))
        self._descend("discriminator", loss)
        discriminator = self._bare(self.networks["discriminator"]).requires_grad_(False)
        with self.accelerator.autocast():
            fooled = discriminator(augment(generated, self.policies, batch.generator), labels)
            of_generator = generator_loss(fooled) + SEEKING * sameness(generated, latents)
        self._descend("decoder", of_generator)
        discriminator.requires_grad_(True)
        return {"loss": loss, "generator_loss": of_generator}

    def _descend(self, name: str, loss: Tensor) -> None:
        self.accelerator.backward(loss)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()
