"""A small classifier of the training photos; its features give the autoencoder a perceptual loss."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mini import loop
from mini.data import Photos, mirror, to_tensor

WIDTHS = (32, 64, 128, 256)
BATCH = 128
DOUBTED = 0.001
"""A fortieth of what guessing among 40 kinds would give."""


class Features(nn.Module):
    """Four strided convolution stages and a linear head; ``forward`` gives logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        ins = (3, *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())
            for a, b in zip(ins, WIDTHS, strict=True)
        )
        self.head = nn.Linear(WIDTHS[-1], classes)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> one feature map a stage, before its pooling."""
        maps, x = [], pixels
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
            x = F.avg_pool2d(x, 2)
        return maps

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, classes) logits."""
        return self.head(self.features(pixels)[-1].mean(dim=(2, 3)))


def distance(net: Features, a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of channel-normalised features (Zhang et al. 2018, eq. 1, unit weights)."""
    with torch.no_grad():
        targets = [F.normalize(f, dim=1, eps=1e-3) for f in net.features(b)]
    parts = [
        (F.normalize(f, dim=1, eps=1e-3) - t).square().sum(1).mean()
        for f, t in zip(net.features(a), targets, strict=True)
    ]
    return torch.stack(parts).sum()


def batch(photos: Photos, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(B, 3, 64, 64) float in [-1, 1], half of them mirrored."""
    pixels = photos.pixels[rows]
    mirror(pixels, rng.random(len(rows)) < 0.5)
    return to_tensor(pixels).to(loop.DEVICE)


@torch.no_grad()
def believed(photos: Photos, net: Features) -> Photos:
    """Without the photos whose label gets less than `DOUBTED` from the classifier that has learned it."""
    chances = torch.cat(
        [_chances(net, photos.pixels[i : i + 256]) for i in range(0, len(photos.pixels), 256)]
    )
    own = chances[torch.arange(len(photos.labels)), torch.from_numpy(photos.labels)].numpy()
    best = np.zeros(photos.photo.max() + 1)
    np.maximum.at(best, photos.photo, own)
    kept = best[photos.photo] >= DOUBTED
    print(f"left out {len(np.unique(photos.photo[~kept]))} photos whose label is doubted", flush=True)
    return photos.only(kept)


def _chances(net: Features, pixels: np.ndarray) -> Tensor:
    """(N, 64, 64, 3) uint8 -> (N, classes) probabilities."""
    return net(to_tensor(pixels).to(loop.DEVICE)).softmax(dim=1).cpu()


def train(photos: Photos, work: Path, steps: int, seed: int) -> Features:
    """Fit the classifier in ``steps`` and return it frozen."""
    net = Features(len(photos.names)).to(loop.DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    clock = loop.Clock(name="features", steps=steps, batch_size=BATCH)
    state = loop.restore(work / "features.pt", clock)
    if state:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    rng = np.random.default_rng([seed, 1, clock.step])

    def keep() -> None:
        loop.save(work / "features.pt", clock, net=net.state_dict(), optimizer=optimizer.state_dict())

    for due in loop.ticks(clock, work / "log.jsonl"):
        if due:
            keep()
        rows = rng.integers(len(photos.pixels), size=BATCH)
        with loop.bf16():
            logits = net(batch(photos, rows, rng))
        loss = F.cross_entropy(logits.float(), torch.from_numpy(photos.labels[rows]).to(loop.DEVICE))
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(clock.done, 1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.losses = {"loss": loss.item()}
    keep()
    return net.eval().requires_grad_(False)
