"""The classifier: maths of augmentation and training, on tensors small enough to check by hand."""

import colorsys
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from scalers import Overflowing

from classify import augment as augmentation
from classify.augment import Strength, affine_matrices, augment, changes, hue_matrices
from classify.config import Training
from classify.mixing import Mixing, row_stream
from classify.sizes import Sizes, resolve
from classify.trainer import Averaged, Batch, Step, Task, batch_stream, fit, schedule, train_steps
from orchard.classifiers.networks import build, require_name
from orchard.classifiers.predict import probabilities, to_float
from orchard.errors import UserError

CPU = torch.device("cpu")
NONE = Strength(rotation=0.0, scale=0.0, shift=0.0, flip=False, brightness=0.0, contrast=0.0, saturation=0.0)


def random_pixels(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit_small(
    pixels: np.ndarray,
    labels: np.ndarray,
    validation=None,
    dtype=torch.float32,
    seed=0,
    on_step=None,
    **options,
):
    task = Task(
        train=(pixels, labels),
        validation=validation or (pixels[:0], labels[:0]),
        classes=2,
        options=Training(**{"batch_size": 8, "steps": 3, **options}),
        seed=seed,
        device=CPU,
        dtype=dtype,
    )
    return fit(task, on_step)


def test_augmentation_of_zero_strength_leaves_the_pixels():
    pixels = random_pixels(4)
    expected = pixels.transpose(0, 3, 1, 2) / 255
    changed = augment(torch.from_numpy(pixels), changes(len(pixels), NONE, generator()))
    assert changed.numpy() == pytest.approx(expected, abs=1e-5)


def test_augmentation_depends_on_its_generator_alone():
    pixels = torch.from_numpy(random_pixels(4))
    first, again = (augment(pixels, changes(4, Strength(hue=0.05), generator(3))) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(pixels, changes(4, Strength(hue=0.05), generator(4))))
    assert first.min() >= 0 and first.max() <= 1


def test_flip_mirrors_left_to_right_about_half_of_the_images():
    pixels = random_pixels(1).repeat(200, axis=0)
    changed = augment(
        torch.from_numpy(pixels), changes(len(pixels), replace(NONE, flip=True), generator())
    ).numpy()
    as_it_was = pixels[0].transpose(2, 0, 1) / 255
    mirrored = as_it_was[:, :, ::-1]
    flips = [np.allclose(image, mirrored, atol=1e-5) for image in changed]
    assert all(np.allclose(i, as_it_was, atol=1e-5) for i, f in zip(changed, flips, strict=True) if not f)
    assert 70 < sum(flips) < 130


def test_without_flip_no_matrix_mirrors():
    matrices = affine_matrices(500, Strength(flip=False), generator())
    assert (torch.linalg.det(matrices[:, :, :2]) > 0).all()


def test_geometry_stays_in_its_range():
    strength = Strength(rotation=10, scale=0.5, shift=0.25, flip=False)
    matrices = affine_matrices(2000, strength, generator())
    angles = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]).rad2deg()
    zooms = torch.linalg.det(matrices[:, :, :2]).sqrt()
    assert angles.abs().max() <= 10 and angles.abs().max() > 9.5
    assert 1 / 1.5 - 1e-5 <= zooms.min() < 0.7 and 1.45 < zooms.max() <= 1.5 + 1e-5
    assert 0.48 < matrices[:, :, 2].abs().max() <= 0.5


def test_hue_turns_red_towards_yellow_as_colorsys_does():
    red = np.array([0.8, 0.3, 0.3])
    turned = hue_matrices(torch.tensor([0.0, 1 / 12])).numpy() @ red
    assert turned[0] == pytest.approx(red, abs=1e-4)
    direction = np.sign(turned[1] - red)
    hue, saturation, value = colorsys.rgb_to_hsv(*red)
    by_colorsys = np.array(colorsys.hsv_to_rgb(hue + 1 / 12, saturation, value))
    assert direction[1] == np.sign(by_colorsys - red)[1] == 1
    luma = np.array(augmentation.GREY)
    assert turned[1] @ luma == pytest.approx(red @ luma, abs=1e-3)


def test_saturation_keeps_grey_images_as_they_are():
    grey = torch.full((3, 3, 8, 8), 0.4)
    changed = augmentation.jitter(grey, changes(3, replace(NONE, saturation=0.9), generator()))
    assert torch.allclose(changed, grey, atol=1e-6)


@pytest.mark.parametrize("size", [32, 64, 100, 128])
def test_cnn_takes_any_size_and_stays_near_a_million_weights(size):
    model = build("cnn", 5, size, seed=0)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 5)
    assert 0.7e6 < sum(p.numel() for p in model.parameters()) < 1.2e6


def test_torchvision_networks_are_built_by_name():
    model = build("mobilenet_v3_small", 4, 64, seed=0)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 4)


def test_unknown_network_is_refused_with_near_names():
    with pytest.raises(UserError, match=r"--model resnet81: no such network; near are .*resnet18"):
        require_name("resnet81")
    with pytest.raises(UserError, match="cnn"):
        build("q", 2, 32, 0)


def test_network_that_does_not_take_the_size_is_refused():
    with pytest.raises(UserError, match=r"--model alexnet: does not take --size 32 .*use --size 224, or"):
        build("alexnet", 2, 32, 0)


def test_weights_are_drawn_from_the_seed_and_leave_the_global_state():
    before = torch.random.get_rng_state()
    first, again, other = (build("cnn", 2, 32, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    key = "network.0.weight"
    assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])


def test_every_row_comes_once_an_epoch_and_batches_are_full():
    batches = list(islice(row_stream(5, 4, generator()), 5))
    assert all(len(batch) == 4 for batch in batches)
    rows = torch.cat(batches).reshape(4, 5)
    assert [sorted(epoch.tolist()) for epoch in rows] == [[0, 1, 2, 3, 4]] * 4


def test_schedule_warms_up_then_falls_to_almost_nothing():
    shares = [schedule(i, 100) for i in range(1, 101)]
    assert shares[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert 0 < shares[-1] < 0.001
    assert schedule(1, 1) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_runs_give_equal_weights_bit_for_bit(dtype):
    pixels, labels = random_pixels(10), np.arange(10) % 2
    first, again = (fit_small(pixels, labels, dtype=dtype).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = fit_small(pixels, labels, dtype=dtype, seed=1).model.state_dict()
    assert not torch.equal(first["network.0.weight"], other["network.0.weight"])


def test_eight_images_are_learnt_by_heart():
    # Patches of 8 pixels outlast the augmentation, noise does not.
    pixels = random_pixels(8, size=4).repeat(8, axis=1).repeat(8, axis=2)
    labels = np.array([0, 1] * 4)
    fitted = fit_small(pixels, labels, validation=(pixels, labels), steps=100, flip=False)
    found = probabilities(fitted.model, pixels, CPU, torch.float32)
    assert (found.argmax(axis=1) == labels).all()
    assert fitted.validation_accuracy == 1


def test_validation_images_choose_nothing():
    pixels, labels = random_pixels(8), np.arange(8) % 2
    with_some = fit_small(pixels, labels, validation=(pixels, 1 - labels), steps=10)
    without = fit_small(pixels, labels, steps=10)
    for one, other in zip(with_some.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_validation_images_there_is_no_validation_accuracy():
    assert fit_small(random_pixels(8), np.array([0, 1] * 4)).validation_accuracy is None


def test_kept_weights_are_the_ones_whose_validation_was_reported():
    pixels, labels = random_pixels(24), np.arange(24) % 2
    held_out = (random_pixels(10, seed=9), np.array([0, 1] * 5))
    fitted = fit_small(pixels, labels, validation=held_out, steps=20)
    found = probabilities(fitted.model, held_out[0], CPU, torch.float32)
    assert fitted.validation_accuracy == np.mean(found.argmax(axis=1) == held_out[1])


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_a_step_reads_one_number_back_from_the_device(name, monkeypatch):
    """Each read waits for a GPU: `Tensor.__bool__` and its kin, in Python and beneath it."""
    reads: list[str] = []
    for way in ("item", "__bool__", "__int__", "__float__", "tolist", "nonzero", "cpu"):
        real = getattr(torch.Tensor, way)
        monkeypatch.setattr(
            torch.Tensor, way, lambda *a, _way=way, _real=real, **k: reads.append(_way) or _real(*a, **k)
        )
    model = build(name, 2, 64, 0)
    averaged = Averaged(model)
    batch = Batch(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1]))
    reads.clear()
    for _ in train_steps(model, iter([batch] * 3), Training(steps=3), CPU, torch.float32):
        averaged.update(model)
    assert reads == ["item"] * 3


@pytest.mark.parametrize("blending", ["plain", "strong", "mixup", "cutmix"])
def test_batches_are_made_without_reading_back_from_the_device(blending):
    """On the device `meta` there is nothing to read: whatever tries raises."""
    options = Training(batch_size=6, augmentation=blending)
    data = random_pixels(8), np.arange(8) % 2
    stream = batch_stream(data, 4, 2, options, Mixing(name="weight"), 0, torch.device("meta"))
    for batch in islice(stream, 3):
        assert batch.images.shape == (6, 3, 32, 32)
        assert batch.images.is_meta and batch.labels.is_meta


def test_averaged_weights_are_those_of_the_formula():
    model = build("cnn", 2, 32, 0)
    averaged = Averaged(model)
    rng, key = np.random.default_rng(0), "network.0.weight"
    expected = 0.0
    for step in range(600):
        values = rng.normal(size=model.state_dict()[key].shape)
        model.state_dict()[key].copy_(torch.from_numpy(values))
        model.network[2].num_batches_tracked.fill_(step)
        averaged.update(model)
        share = min(0.98, (1 + step) / (10 + step)) if step else 0.0
        expected = share * expected + (1 - share) * values
    assert averaged.model.state_dict()[key].numpy() == pytest.approx(expected, abs=1e-5)
    assert averaged.model.network[2].num_batches_tracked == 599


def test_loss_that_is_not_finite_stops_and_names_the_step():
    model = build("cnn", 2, 32, 0)
    good = Batch(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    bad = Batch(torch.full((4, 3, 32, 32), math.nan), good.labels)
    steps = train_steps(model, iter([good, bad]), Training(steps=2), CPU, torch.float32)
    assert isinstance(next(steps), Step)
    with pytest.raises(FloatingPointError, match="step 2 of 2"):
        next(steps)
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_probabilities_sum_to_one_and_do_not_depend_on_the_batch():
    model, pixels = build("cnn", 3, 32, 0), random_pixels(7)
    at_once = probabilities(model, pixels, CPU, torch.bfloat16)
    in_parts = probabilities(model, pixels, CPU, torch.bfloat16, batch_size=3)
    assert at_once.shape == (7, 3) and at_once.dtype == np.float64
    assert at_once.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert in_parts == pytest.approx(at_once, abs=0.02)
    assert model.training


def test_probabilities_are_the_softmax_of_the_logits():
    class Brightness(torch.nn.Module):
        def forward(self, images):
            mean = images.mean(dim=(1, 2, 3))
            return torch.stack([mean, torch.zeros_like(mean)], dim=1)

    pixels = np.full((1, 4, 4, 3), 51, np.uint8)  # 0.2
    expected = math.exp(0.2) / (math.exp(0.2) + 1)
    found = probabilities(Brightness(), pixels, CPU, torch.float32)
    assert found[0] == pytest.approx([expected, 1 - expected], abs=1e-6)


def test_small_training_images_set_the_size_that_all_go_through():
    assert resolve(0, 1000) == Sizes(size=256, through=None)
    assert resolve(0, 64) == Sizes(size=64, through=None)
    assert resolve(128, 64) == Sizes(size=128, through=64)
    assert resolve(64, 512) == Sizes(size=64, through=None)
    assert resolve(0, 28) == Sizes(size=32, through=28)


def test_to_float_moves_channels_and_scales():
    pixels = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    pixels[0, 1, 0] = torch.tensor([255, 0, 51])
    assert to_float(pixels)[0, :, 1, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_a_step_that_the_loss_scaler_skips_is_no_step_for_the_average(monkeypatch):
    """Float16 overflows in the first steps, until the scale has come down."""
    skipped, updates = [], []
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: Overflowing(1, 3))
    monkeypatch.setattr(Averaged, "update", lambda *_: updates.append(len(skipped)))
    fit_small(random_pixels(8), np.arange(8) % 2, steps=5, on_step=lambda step: skipped.append(step.skipped))
    assert skipped == [True, False, True, False, False]
    assert updates == [1, 3, 4]
