import numpy as np
import pytest
from pictures import encoded, photo
from PIL import Image, ImageOps

from evaluate.gap.memorisation import memorisation, sentence
from orchard.images.thumbnails import Originals, closest_share, nearest, of_image, of_photos


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(count, 32, 32, 3), dtype=np.uint8)


def test_a_copy_has_distance_zero_and_its_negative_two():
    images = noise(3, 0)
    assert nearest(images, images) == pytest.approx([0, 0, 0], abs=1e-5)
    # One reference, so that no other image is nearer; 255 - x correlates -1 with x, about 0 with its mirror.
    assert nearest(255 - images[:1], images[:1])[0] == pytest.approx(1, abs=0.1)


def test_mirrors_and_exposure_do_not_hide_a_copy():
    images = noise(4, 1)
    assert nearest(images[:, :, ::-1], images) == pytest.approx(np.zeros(4), abs=1e-5)
    assert nearest(images // 2 + 60, images) == pytest.approx(np.zeros(4), abs=1e-3)


def test_the_distance_is_one_less_the_correlation():
    one, other = noise(1, 2), noise(1, 3)
    plain = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    mirrored = np.corrcoef(one.ravel(), other[:, :, ::-1].ravel())[0, 1]
    assert nearest(one, other)[0] == pytest.approx(1 - max(plain, mirrored), abs=1e-5)


def test_an_image_is_not_its_own_neighbour():
    images = np.concatenate([noise(5, 4), noise(5, 4)[:1]])
    found = nearest(images, images, same=True)
    assert found[[0, 5]] == pytest.approx([0, 0], abs=1e-5)
    assert (found[1:5] > 0.5).all()


def test_flat_images_are_far_from_everything():
    flat = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    assert nearest(flat, noise(3, 5))[0] == 1


def test_planted_copies_are_counted_on_both_sides():
    # Training images that share most of their pixels are near to each other; noise is far from them.
    train = (0.7 * noise(1, 5) + 0.3 * noise(20, 6)).astype(np.uint8)
    test = noise(6, 7)
    synthetic = np.concatenate([noise(7, 8), train[:2], train[3:4, :, ::-1], test[:1]])
    found = memorisation([synthetic] * 2, [train] * 2, [test] * 2)
    assert (found["near_train"], found["near_test"], found["images"]) == (3, 1, 11)
    assert found["share_near_train"] == pytest.approx(3 / 11)
    assert found["natural"] == 0
    assert sentence(found).startswith("3 of 11 synthetic images (27.3%)")


def test_a_copy_is_found_by_whichever_framing_its_generator_learned_from():
    wide = [Image.fromarray(noise(1, seed)[0]).resize((64, 32)) for seed in range(20)]
    originals = Originals(
        of_photos([photo(f"{i}.png", "a", data=encoded(one)) for i, one in enumerate(wide)])
    )
    centre = wide[3].crop((16, 0, 48, 32))
    whole = ImageOps.pad(wide[3], (32, 32), color="white")
    for copy in (centre, whole):
        assert originals.nearness(of_image(copy))[0] < 0.5
        assert originals.nearness(of_image(ImageOps.mirror(copy)))[0] < 0.5
    assert originals.nearness(of_image(Image.fromarray(noise(1, 99)[0])))[0] >= 1


def test_of_images_that_are_there_twice_an_exact_copy_is_one():
    twice = np.concatenate([noise(4, 1)] * 2)
    assert (Originals([twice]).nearness([noise(4, 1)]) < 1).all()
    assert (Originals([twice]).nearness([noise(4, 2)]) > 1).all()


@pytest.mark.parametrize("number", [1, 3])
def test_few_photos_that_are_far_apart_do_not_make_everything_a_copy(number):
    photos = noise(number, 1)
    near = (0.9 * photos + 0.1 * noise(number, 2)).astype(np.uint8)
    alike = (0.6 * photos + 0.4 * noise(number, 3)).astype(np.uint8)
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(alike, photos, strict=True)]
    assert max(correlation) < 0.9
    assert (Originals([photos]).nearness([near]) < 1).all()
    assert (Originals([photos]).nearness([alike]) > 1).all()


def test_many_images_are_compared_in_pieces(monkeypatch):
    images = noise(9, 9)
    whole = nearest(images, images, same=True)
    monkeypatch.setattr("orchard.images.thumbnails.PAIRS", 4 * 9)
    assert nearest(images, images, same=True) == pytest.approx(whole, abs=1e-6)


def test_of_many_images_some_say_from_where_on_one_is_a_copy(monkeypatch):
    images = noise(30, 9)
    asked = np.quantile(nearest(images, images, same=True)[::3], 0.01)
    monkeypatch.setattr("orchard.images.thumbnails.ASKED", 10)
    monkeypatch.setattr("orchard.images.thumbnails.FARTHEST", 2.0)
    assert closest_share(images) == pytest.approx(asked, abs=1e-6)
