"""The decoder stage: the encoder stays, the decoder learns sharpness from an adversary."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mini import loop
from mini.autoencoder import PERCEPTUAL
from mini.data import Photos
from mini.perception import Features, distance

BATCH = 24
ADVERSARIAL = 0.05
PEAK = 3e-4
BETAS = (0.5, 0.9)
HEAD_START = 0.04
"""Share of the budget in which the adversary learns alone."""


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
        return self.network(images)


def train(
    vae: AutoencoderKL,
    photos: Photos,
    latents: Tensor,
    features: Features,
    work: Path,
    seconds: float,
    seed: int,
) -> AutoencoderKL:
    """Sharpen the decoder within ``seconds``: L1, perceptual distance and a hinge adversary.

    ``latents`` are `autoencoder.encode_all`'s; they stay valid, since the encoder is not touched.
    """
    learned = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in learned:
        parameter.requires_grad_(True)
    adversary = Adversary().to(memory_format=torch.channels_last)
    optimizers = [torch.optim.AdamW(p, PEAK, BETAS) for p in (learned, list(adversary.parameters()))]
    clock = loop.Clock(name="decoder", budget=seconds, batch_size=BATCH)
    path = work / "decoder.pt"
    state = loop.restore(path, clock)
    if state:
        vae.load_state_dict(state["vae"])
        adversary.load_state_dict(state["adversary"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    torch.manual_seed(seed + clock.step)
    rng = np.random.default_rng([seed, 4, clock.step])
    decode = torch.compile(lambda codes: vae.decoder(vae.post_quant_conv(codes)), dynamic=False)

    def keep() -> None:
        states = [optimizer.state_dict() for optimizer in optimizers]
        loop.save(path, clock, vae=vae.state_dict(), adversary=adversary.state_dict(), optimizers=states)

    for due in loop.ticks(clock, work / "log.jsonl"):
        if due:
            keep()
        codes, images = _batch(photos, latents, rng)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = loop.learning_rate(clock.done, PEAK)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = decode(codes).float()
            pixel, perceptual = (decoded - images).abs().mean(), distance(features, decoded, images)
            fooled = -adversary(decoded).float().mean()
        weight = ADVERSARIAL if clock.done > HEAD_START else 0.0
        _step(optimizers[0], pixel + PERCEPTUAL * perceptual.float() + weight * fooled, learned)
        with torch.autocast("cpu", torch.bfloat16):
            real, fake = adversary(images).float(), adversary(decoded.detach()).float()
        hinge = (F.relu(1 - real) + F.relu(1 + fake)).mean()
        _step(optimizers[1], hinge, list(adversary.parameters()))
        parts = {"l1": pixel, "perceptual": perceptual, "fooled": fooled, "hinge": hinge}
        clock.losses = {name: value.item() for name, value in parts.items()}
    keep()
    return vae.eval().requires_grad_(False)


def _batch(photos: Photos, latents: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(B, 4, 16, 16) sampled latents and the (B, 3, 64, 64) pictures in [-1, 1] they came from."""
    rows, mirrored = rng.integers(len(photos.pixels), size=BATCH), rng.integers(2, size=BATCH)
    mean, std = latents[mirrored, rows].float().chunk(2, dim=1)
    pixels = photos.pixels[rows]
    pixels[mirrored == 1] = pixels[mirrored == 1, :, ::-1]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    codes = mean + std * torch.randn_like(mean)
    return codes, images.contiguous(memory_format=torch.channels_last)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
