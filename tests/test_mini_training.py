"""The stage that sharpens the embedded base's decoder."""

import sys

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from mini import autoencoder, perception
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
