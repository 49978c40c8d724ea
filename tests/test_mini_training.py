"""Stages that train the embedded base: its decoder is sharpened, its denoiser goes on where it stopped."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from mini import autoencoder, captions, denoiser, export, loop, perception
from mini.data import Photos
from mini.decoder import Sharpener


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(2, 4, 16, 16, generator=generator)
    return codes, torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1


def sharpener(monkeypatch) -> Sharpener:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    torch.manual_seed(0)
    features = perception.Features(2).eval().requires_grad_(False)
    return Sharpener(autoencoder.build().requires_grad_(False), features)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_a_step_changes_decoder_and_adversary_and_leaves_the_encoder(monkeypatch, batch):
    one = sharpener(monkeypatch)
    modules = (one.vae.decoder, one.adversary, one.vae.encoder)
    before = [weights(module).clone() for module in modules]
    losses = one.step(*batch, rate=1e-3, weight=0.05)
    assert set(losses) == {"l1", "perceptual", "fooled", "hinge"}
    same = [torch.equal(old, weights(module)) for old, module in zip(before, modules, strict=True)]
    assert same == [False, False, True]


def test_steps_on_one_batch_bring_it_nearer(monkeypatch, batch):
    one = sharpener(monkeypatch)
    losses = [one.step(*batch, rate=1e-3, weight=0.0)["l1"] for _ in range(12)]
    assert losses[-1] < losses[0]


def test_a_restored_stage_takes_the_same_next_step(monkeypatch, batch):
    one, other = sharpener(monkeypatch), sharpener(monkeypatch)
    one.step(*batch, rate=1e-3, weight=0.05)
    other.restore(one.state())
    for stage in (one, other):
        stage.adversary.eval()  # its spectral norms estimate themselves anew at each training step
    assert one.step(*batch, rate=1e-3, weight=0.05) == other.step(*batch, rate=1e-3, weight=0.05)


def test_the_denoiser_goes_on_where_a_stopped_run_left_it(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(denoiser, "BATCH", 2)
    names = ("apple", "banana")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    photos = Photos(pixels=pixels, labels=np.array([0, 1, 0, 1]), names=names)
    latents = torch.randn(2, 4, 8, 16, 16)
    words = export.tokenizer(captions.table(names))
    seen: list[int] = []

    def train(seconds: float) -> denoiser.Denoiser:
        options = {"seed": 0, "focus": ("apple",), "share": 0.5}
        return denoiser.train(
            photos,
            latents,
            words,
            tmp_path,
            seconds=seconds,
            preview=lambda _, step: seen.append(step),
            **options,
        )

    train(0.5)
    kept = loop.restore(tmp_path / "denoiser.pt", loop.Clock(name="", budget=1, batch_size=2))
    again = train(0.5)  # the budget is spent
    assert seen == [kept["step"]] * 2
    assert all(torch.equal(a, b) for a, b in zip(kept["average"], _trained(again), strict=True))
    further = train(kept["spent"] + 0.3)
    assert seen[2] > seen[1] >= 1
    assert not all(torch.equal(a, b) for a, b in zip(kept["average"], _trained(further), strict=True))


def _trained(found: denoiser.Denoiser) -> list[torch.Tensor]:
    return [*found.unet.parameters(), *found.text.parameters()]
