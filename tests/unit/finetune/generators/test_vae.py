"""The parts of the VAE against values by hand and by torch."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from finetune.generators.vae import Vae, divergence, pyramid_distance
from orchard.generators.decoder import Decoder


def test_the_divergence_is_that_of_torch_and_by_hand():
    mean, log_variance = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros(7), torch.ones(7))).sum(dim=1).mean()
    assert torch.allclose(divergence(mean, log_variance), expected)
    assert divergence(torch.ones(1, 1), torch.zeros(1, 1)).item() == pytest.approx(0.5)


def test_the_pyramid_tells_a_shade_by_its_coarsest_level_and_a_pattern_by_its_finest():
    images = torch.zeros(2, 3, 16, 16)
    assert pyramid_distance(images, images).item() == 0
    assert pyramid_distance(images + 0.25, images).item() == pytest.approx(0.25)
    checks = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1).float().expand_as(images)
    assert pyramid_distance(checks, images).item() == pytest.approx(1)
    assert pyramid_distance(images, checks).item() == pytest.approx(1)


def test_without_noise_the_image_again_is_that_of_the_mean():
    torch.manual_seed(0)
    network = Vae(Decoder(classes=2, size=32, width=2, latent=3), classes=2, size=32, width=2).eval()
    images, labels = torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([0, 1, 1, 0])
    again, mean, log_variance = network(images, labels, torch.zeros(4, 3))
    assert again.shape == images.shape and mean.shape == log_variance.shape == (4, 3)
    assert torch.allclose(again, network.decoder(mean, labels))
