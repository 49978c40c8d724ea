"""How two sources share the steps."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional

from classify.augment import blend
from classify.config import Training
from classify.mixing import Mixing, rows_of, weights_of
from classify.trainer import LABEL_SMOOTHING, Batch, Task, fit, loss_of

REAL, SYNTHETIC = 6, 10
LABELS = torch.tensor([0, 1] * 3 + [0] * 5 + [1] * 5)
CPU = torch.device("cpu")


def rows(name: str, steps: int = 40, batch: int = 4, real: int = REAL, labels=LABELS, weight: float = 0.75):
    generator = torch.Generator().manual_seed(0)
    mixing = Mixing(name=name, real_weight=weight)
    return torch.stack(list(islice(rows_of(mixing, labels, real, batch, steps, generator), steps)))


@pytest.mark.parametrize("name", ["union", "weight"])
def test_every_image_of_both_sources_comes_once_an_epoch(name):
    assert Counter(rows(name, steps=8).flatten().tolist()) == dict.fromkeys(range(16), 2)


def test_each_batch_holds_its_share_of_real_images():
    found = rows("batch")
    assert ((found < REAL).sum(dim=1) == 3).all()
    assert Counter(found[found < REAL].tolist()) == dict.fromkeys(range(REAL), 20)
    assert ((rows("batch", weight=0.99) < REAL).sum(dim=1) == 3).all()


def test_synthetic_images_come_first_then_real_ones():
    found = rows("synthetic_first", steps=10)
    assert (found[:5] >= REAL).all()
    assert (found[5:] < REAL).all()


@pytest.mark.parametrize("name", ["batch", "synthetic_first"])
@pytest.mark.parametrize("real", [0, 16])
def test_one_source_alone_is_never_mixed(name, real):
    assert Counter(rows(name, steps=4, real=real).flatten().tolist()) == dict.fromkeys(range(16), 1)


def test_weights_give_each_source_its_share_whatever_the_batch():
    mixing = Mixing(name="weight", real_weight=0.8)
    found = weights_of(mixing, torch.tensor([True, False, False, False]))
    assert found.tolist() == pytest.approx([0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3])
    assert weights_of(mixing, torch.tensor([True, True])) is None
    assert weights_of(Mixing(), torch.tensor([True, False])) is None


def test_the_weighted_loss_is_the_sources_mean_losses_at_their_weights():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    is_real = torch.tensor([True, False, True, False])
    found = loss_of(logits, Batch(logits, labels, weights_of(Mixing(name="weight"), is_real)))

    def mean(rows: torch.Tensor) -> float:
        return functional.cross_entropy(logits[rows], labels[rows], label_smoothing=LABEL_SMOOTHING).item()

    assert found.item() == pytest.approx(0.8 * mean(is_real) + 0.2 * mean(~is_real), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_blended_pairs_stay_within_their_source(kind):
    generator = torch.Generator().manual_seed(1)
    is_real = torch.tensor([True, False] * 4)
    images = torch.where(is_real, 1.0, 0.0).view(-1, 1, 1, 1).repeat(1, 3, 8, 8)
    labels = torch.tensor([0, 2, 1, 3] * 2)
    blended, shares = blend(images, labels, is_real, 4, kind, generator)
    assert torch.allclose(blended, images)
    assert torch.allclose(shares.sum(dim=1), torch.ones(8))
    assert (shares[is_real][:, 2:] == 0).all() and (shares[~is_real][:, :2] == 0).all()
    assert (shares.max(dim=1).values < 1).any()


@pytest.mark.parametrize("name", ["union", "weight", "batch", "synthetic_first"])
@pytest.mark.parametrize("augmentation", ["plain", "cutmix"])
def test_every_way_of_mixing_trains_and_repeats_bit_for_bit(name, augmentation):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    options = Training(steps=5, batch_size=4, augmentation=augmentation)

    def weights() -> dict[str, torch.Tensor]:
        task = Task(
            train=(pixels[:REAL], LABELS[:REAL].numpy()),
            synthetic=(pixels[REAL:], LABELS[REAL:].numpy()),
            mixing=Mixing(name=name),
            validation=(pixels[:0], LABELS[:0].numpy()),
            classes=2,
            options=options,
            seed=0,
            device=CPU,
            dtype=torch.float32,
        )
        fitted = fit(task)
        assert fitted.seconds_network > 0
        return fitted.model.state_dict()

    first, again = weights(), weights()
    assert all(torch.equal(first[key], again[key]) for key in first)
