"""The decoder stage: the encoder stays, the decoder learns sharpness from an adversary."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mini import loop
from mini.autoencoder import PERCEPTUAL
from mini.data import Photos, mirror, to_tensor
from mini.perception import Features, distance

BATCH = 24
ADVERSARIAL = 0.05
PEAK = 3e-4
BETAS = (0.5, 0.9)
HEAD_START = 0.04
"""Share of the steps before the adversary has a say."""


class Adversary(nn.Module):
    """(B, 3, 64, 64) in [-1, 1] -> (B, 1, 16, 16) logits, one a patch: photo or decoded."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 48, 2), (48, 96, 2), (96, 128, 1))
        layers: list[nn.Module] = []
        for before, width, stride in widths:
            layers += [spectral_norm(nn.Conv2d(before, width, 3, stride, 1)), nn.LeakyReLU(0.2)]
        self.network = nn.Sequential(*layers, spectral_norm(nn.Conv2d(128, 1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """A map of logits, above 0 where it takes the patch for real."""
        return self.network(images)


class Sharpener:
    """Decoder and adversary, an optimiser each, and the step that trains both."""

    def __init__(self, vae: AutoencoderKL, features: Features) -> None:
        self.vae, self.features = vae, features
        self.adversary = Adversary().to(loop.DEVICE, memory_format=torch.channels_last)
        self.learned = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
        for parameter in self.learned:
            parameter.requires_grad_(True)
        self.judging = list(self.adversary.parameters())
        self.optimizers = [torch.optim.AdamW(p, PEAK, BETAS) for p in (self.learned, self.judging)]
        self.decode = torch.compile(lambda codes: vae.decoder(vae.post_quant_conv(codes)), dynamic=False)

    def state(self) -> dict:
        """For a checkpoint."""
        return {
            "vae": self.vae.state_dict(),
            "adversary": self.adversary.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def restore(self, state: dict) -> None:
        """Take what `state` gave."""
        self.vae.load_state_dict(state["vae"])
        self.adversary.load_state_dict(state["adversary"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def step(self, codes: Tensor, images: Tensor, rate: float, weight: float) -> dict[str, float]:
        """One update of the decoder, ``weight`` on fooling the adversary, then one of the adversary."""
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
        with loop.bf16():
            decoded = self.decode(codes).float()
            pixel = (decoded - images).abs().mean()
            perceptual = distance(self.features, decoded, images).float()
            fooled = -self.adversary(decoded).float().mean()
        _update(self.optimizers[0], pixel + PERCEPTUAL * perceptual + weight * fooled, self.learned)
        with loop.bf16():
            real, fake = self.adversary(images).float(), self.adversary(decoded.detach()).float()
        hinge = (F.relu(1 - real) + F.relu(1 + fake)).mean()
        _update(self.optimizers[1], hinge, self.judging)
        parts = {"l1": pixel, "perceptual": perceptual, "fooled": fooled, "hinge": hinge}
        return {name: value.item() for name, value in parts.items()}


def train(
    vae: AutoencoderKL,
    photos: Photos,
    latents: Tensor,
    features: Features,
    work: Path,
    *,
    steps: int,
    seed: int,
    preview: Callable[[AutoencoderKL, int], None],
) -> AutoencoderKL:
    """Sharpen the decoder in ``steps``: L1, perceptual distance and a hinge adversary.

    ``latents`` are `autoencoder.encode_all`'s; they stay valid, since the encoder is not touched.
    ``preview(vae, step)`` at each checkpoint.
    """
    sharpener = Sharpener(vae.to(loop.DEVICE), features)
    clock = loop.Clock(name="decoder", steps=steps, batch_size=BATCH)
    path = work / "decoder.pt"
    state = loop.restore(path, clock)
    if state:
        sharpener.restore(state)
    torch.manual_seed(seed + clock.step)
    rng = np.random.default_rng([seed, 4, clock.step])

    def keep() -> None:
        loop.save(path, clock, **sharpener.state())
        preview(vae, clock.step)

    for due in loop.ticks(clock, work / "log.jsonl"):
        if due:
            keep()
        codes, images = _batch(photos, latents, rng)
        weight = ADVERSARIAL if clock.done > HEAD_START else 0.0
        clock.losses = sharpener.step(codes, images, loop.learning_rate(clock.done, PEAK), weight)
    keep()
    return vae.eval().requires_grad_(False)


def _batch(photos: Photos, latents: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(B, 4, 16, 16) sampled latents and the (B, 3, 64, 64) pictures in [-1, 1] they came from."""
    rows, mirrored = rng.integers(len(photos.pixels), size=BATCH), rng.integers(2, size=BATCH)
    mean, std = latents[mirrored, rows].to(loop.DEVICE).float().chunk(2, dim=1)
    pixels = photos.pixels[rows]
    mirror(pixels, mirrored == 1)
    return mean + std * torch.randn_like(mean), to_tensor(pixels).to(loop.DEVICE)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
