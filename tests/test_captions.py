"""What the embedded base's captions say of a photo."""

import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from mini import captions, data

NAMES = ("apple", "banana")
ROWS, COLUMNS = np.mgrid[:64, :64]


def disc(y: int, x: int, radius: int) -> np.ndarray:
    return (ROWS - y) ** 2 + (COLUMNS - x) ** 2 <= radius**2


def picture(mask: np.ndarray) -> np.ndarray:
    """(64, 64, 3) uint8: red where ``mask``, white elsewhere."""
    return np.where(mask[..., None], (200, 20, 20), (255, 255, 255)).astype(np.uint8)


def said(pixels: np.ndarray) -> list[str]:
    white = np.array([data.white_background(pixels)])
    photos = data.Photos(pixels=pixels[None], labels=np.array([0]), white=white, names=NAMES)
    found = captions.traits(photos)[0]
    return [choices[i] for choices, i in zip(captions.PHRASES, found, strict=True)]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (disc(32, 32, 28), ["white background", "single", "close"]),
        (disc(32, 32, 12), ["white background", "single", "far"]),
        (disc(20, 16, 10) | disc(40, 46, 10), ["white background", "several", "far"]),
        # Two that touch are one piece that does not fill its hull: neither single nor several.
        (disc(32, 18, 14) | disc(32, 45, 14), ["white background", "", "far"]),
        (np.ones((64, 64), bool), ["scene background", "", ""]),
    ],
    ids=["one, large", "one, small", "two", "two that touch", "scene"],
)
def test_a_caption_tells_background_number_and_distance(mask, expected):
    assert said(picture(mask)) == expected


def test_a_disc_fills_its_hull_and_a_ring_does_not():
    assert captions.solidity(disc(32, 32, 20)) > 0.95
    assert captions.solidity(disc(32, 32, 20) & ~disc(32, 32, 15)) < 0.6


def test_a_row_of_the_table_says_what_was_drawn():
    table = captions.table(NAMES)
    labels, traits = np.array([1] * 4000), np.array([[2, 1, 2]] * 4000)
    rows = captions.draw(labels, traits, np.random.default_rng(0))
    found = [table[row] for row in rows]
    assert {text.split(",")[0] for text in found} == {"", "a photo of banana"}
    assert "a photo of banana, white background, single, far" in found
    assert np.mean([text == "" for text in found]) == pytest.approx(captions.DROPPED, abs=0.02)
    # None of three phrases: left out together, or each of them by itself.
    plain = captions.PLAIN + (1 - captions.PLAIN) * (1 - captions.KEPT) ** 3
    share = np.mean([text == "a photo of banana" for text in found])
    assert share == pytest.approx(plain * (1 - captions.DROPPED), abs=0.03)
