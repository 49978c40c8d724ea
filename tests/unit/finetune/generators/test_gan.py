"""The parts of the GAN against values by hand: losses, spectral norm, projection, augmentation, average."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.generators.diffaugment import POLICIES, augment
from finetune.generators.gan import Discriminator, discriminator_loss, generator_loss, sameness
from finetune.generators.learner import Learner
from orchard.generators.decoder import Decoder


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def pictures(count: int = 4, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=seeded()) * 2 - 1


def test_hinge_losses_are_those_by_hand():
    real, generated = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 1.0])
    assert discriminator_loss(real, generated).item() == pytest.approx(2.5 / 3 + 1)
    assert generator_loss(generated).item() == pytest.approx(1 / 3)


def test_images_of_a_class_that_differ_less_than_their_latents_are_alike():
    latents = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [1.0, 3.0]])  # apart by 1 in the mean
    images = torch.zeros(4, 3, 2, 2)
    images[2:] = torch.tensor([0.25, 0.75])[:, None, None, None]  # by 0.5
    assert sameness(images, latents).item() == pytest.approx(2, rel=1e-3)
    assert sameness(torch.zeros(4, 3, 2, 2), latents).item() > 1e4


def test_the_weights_of_each_layer_of_the_discriminator_have_a_spectral_norm_of_one():
    torch.manual_seed(0)
    network = Discriminator(classes=3, size=32, width=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5)
        for _ in range(50):
            network(pictures(), torch.tensor([0, 1, 2, 0]))
    layers = [module for module in network.modules() if hasattr(module, "parametrizations")]
    assert len(layers) == 3 + 2
    for layer in layers:
        weights = layer.weight.detach().flatten(1).numpy()
        assert np.linalg.svd(weights, compute_uv=False)[0] == pytest.approx(1, abs=0.02)


def test_a_class_changes_the_score_by_its_projection_on_the_features():
    torch.manual_seed(0)
    network = Discriminator(classes=2, size=32, width=4).eval()
    images = pictures()
    found = network.features(images).sum(dim=(2, 3))
    first, second = network.classes.weight
    zeros = torch.zeros(4, dtype=torch.long)
    difference = network(images, zeros + 1) - network(images, zeros)
    assert torch.allclose(difference, found @ (second - first), atol=1e-5)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_augmentation_lets_gradients_through_and_follows_its_generator(policy):
    images = pictures().requires_grad_()
    seen = augment(images, (policy,), seeded())
    assert seen.shape == images.shape
    assert torch.equal(seen, augment(images, (policy,), seeded()))
    assert not torch.equal(seen, augment(images, (policy,), seeded(1)))
    seen.square().sum().backward()
    assert images.grad.isfinite().all() and (images.grad != 0).float().mean() > 0.4


def test_no_augmentation_changes_nothing():
    images = pictures()
    assert torch.equal(augment(images, ("none",), seeded()), images)


def test_translation_moves_whole_images_by_up_to_an_eighth():
    images = torch.zeros(64, 3, 16, 16)
    images[:, :, 8, 8] = 1
    seen = augment(images, ("translation",), seeded())
    places = seen[:, 0].nonzero()
    assert len(places) == 64 and seen.sum() == images.sum()
    assert set((places[:, 1] - 8).tolist()) == set((places[:, 2] - 8).tolist()) == {-2, -1, 0, 1, 2}


def test_cutout_leaves_out_at_most_a_square_of_half_the_side_and_the_same_in_each_channel():
    seen = augment(torch.ones(64, 3, 16, 16), ("cutout",), seeded())
    holes = (seen == 0).flatten(2).sum(dim=2)
    assert (holes == holes[:, :1]).all()
    assert holes.max() == 64 and holes.min() >= 16


def test_colours_move_grey_images_to_other_greys():
    seen = augment(torch.zeros(32, 3, 8, 8), ("color",), seeded())
    levels = seen[:, :, :1, :1]
    assert torch.allclose(seen, levels.expand_as(seen), atol=1e-6)
    assert torch.allclose(levels[:, 0], levels[:, 2], atol=1e-6)
    assert levels.abs().max() <= 0.5 and levels.std() > 0.1
    assert list(POLICIES) == ["color", "translation", "cutout", "none"]


class Constant(Learner):
    """Learns nothing; its decoder is set by hand."""

    curves = {}  # noqa: RUF012

    def step(self, batch):
        return {}


def test_the_average_forgets_the_start_and_then_follows_its_decay():
    decoder = Decoder(classes=2, size=32, width=1, latent=2)
    decoder.requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.fill_(0)
    learner = Constant(decoder, 0.5, SimpleNamespace(device=torch.device("cpu")))
    expected = 0.0
    for step, decay in ((0, 0.1), (1, 2 / 11), (100, 0.5)):
        for parameter in decoder.parameters():
            parameter.fill_(step + 1)
        learner.update_average(step)
        expected = decay * expected + (1 - decay) * (step + 1)
        assert learner.average.first.weight[0, 0].item() == pytest.approx(expected)
    assert learner.average.norms[0].norm.running_var[0].item() == pytest.approx(1)
