"""The autoencoder stage: 64x64x3 pixels to 16x16x4 latents and back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from mini import data, loop
from mini.data import Photos
from mini.perception import Features, batch, distance
from orchard.files import atomic

BATCH = 24
CROP, CROPPED = 32, 0.75
PERCEPTUAL = 0.05
KL = 2.5e-3
PEAK = 2e-3


def build() -> AutoencoderKL:
    """An untrained autoencoder of the stock class."""
    blocks = 3
    vae = AutoencoderKL(
        sample_size=64,
        latent_channels=4,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    # Start with little posterior noise: unit noise drowns the signal for the first thousand steps.
    vae.quant_conv.bias.data[4:] = -4.0
    return vae


def train(
    photos: Photos,
    features: Features,
    work: Path,
    *,
    steps: int,
    seed: int,
    preview: Callable[[AutoencoderKL, int], None],
) -> AutoencoderKL:
    """Fit the autoencoder in ``steps``: L1, perceptual distance and a little KL.

    ``preview(vae, step)`` at each checkpoint.
    """
    vae = build().to(loop.DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK, betas=(0.9, 0.99), weight_decay=0.0)
    clock = loop.Clock(name="autoencoder", steps=steps, batch_size=BATCH)
    state = loop.restore(work / "autoencoder.pt", clock)
    if state:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
    torch.manual_seed(seed + clock.step)
    rng = np.random.default_rng([seed, 2, clock.step])
    losses = torch.compile(lambda images: _losses(vae, features, images), dynamic=False)

    def keep() -> None:
        loop.save(work / "autoencoder.pt", clock, vae=vae.state_dict(), optimizer=optimizer.state_dict())
        preview(vae, clock.step)

    for due in loop.ticks(clock, work / "log.jsonl"):
        if due:
            keep()
        images = batch(photos, rng.integers(len(photos.pixels), size=BATCH), rng)
        if clock.done < CROPPED:
            # Quarter pictures give four times the steps; whole ones at the end settle the norms.
            images = _cropped(images, rng)
        with loop.bf16():
            pixel, perceptual, kl = losses(images)
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(clock.done, PEAK)
        optimizer.zero_grad()
        (pixel + PERCEPTUAL * perceptual + KL * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        clock.losses = {"l1": pixel.item(), "perceptual": perceptual.item(), "kl": kl.item()}
    keep()
    return vae.eval().requires_grad_(False)


def _cropped(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The same quarter, drawn at random, of every picture."""
    top, left = rng.integers(0, data.SIZE - CROP + 1, size=2)
    quarter = images[:, :, top : top + CROP, left : left + CROP]
    return quarter.contiguous(memory_format=torch.channels_last)


def _losses(vae: AutoencoderKL, features: Features, images: Tensor) -> tuple[Tensor, ...]:
    moments = vae.quant_conv(vae.encoder(images)).float()
    mean, logvar = moments.chunk(2, dim=1)
    logvar = logvar.clamp(-30, 20)
    latents = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
    out = vae.decoder(vae.post_quant_conv(latents))
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    pixel = (out.float() - images).abs().mean()
    return pixel, distance(features, out, images).float(), kl


@torch.no_grad()
def encode_all(vae: AutoencoderKL, photos: Photos, cache: Path) -> Tensor:
    """(2, N, 8, 16, 16) bf16: posterior mean and deviation of every photo and of its mirror image."""
    if cache.exists():
        return torch.load(cache, weights_only=True)
    halves = []
    for pixels in (photos.pixels, photos.pixels[:, :, ::-1]):
        rows = [_moments(vae, pixels[i : i + 256]) for i in range(0, len(pixels), 256)]
        halves.append(torch.cat(rows))
    latents = torch.stack(halves)
    with atomic.whole_file(cache) as aside:
        torch.save(latents, aside)
    return latents


def _moments(vae: AutoencoderKL, pixels: np.ndarray) -> Tensor:
    with loop.bf16():
        posterior = vae.encode(data.to_tensor(pixels).to(vae.device)).latent_dist
    return torch.cat([posterior.mean.float(), posterior.std.float()], dim=1).bfloat16().cpu()


def reconstruct(vae: AutoencoderKL, pixels: np.ndarray) -> np.ndarray:
    """(N, 64, 64, 3) uint8 -> the same after encoding and decoding."""
    with torch.no_grad():
        images = data.to_tensor(pixels).to(vae.device)
        return data.to_pixels(vae.decode(vae.encode(images).latent_dist.mean).sample)
