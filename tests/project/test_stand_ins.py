"""The stand-ins of the real image sets, and which tests run where."""

import subprocess
from collections import Counter
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import conftest
import numpy as np
import pictures
import pytest
import shell
from conftest import either
from diffusers import StableDiffusionPipeline
from PIL import Image

from orchard.images.images import decode


@either("fruit")
def test_the_fruit_set_has_the_quirks_that_the_loader_has_to_survive(fruit):
    kinds, sizeless, unturned, hidden = Counter(), set(), set(), set()
    pngs, sides = set(), set()
    for path in fruit.rglob("*.jpg"):
        with Image.open(path) as image:
            sides.add(image.size)
            if image.getexif().get(pictures.ORIENTATION) == 0:
                unturned.add(path)
            if image.format == "PNG":
                pixels = np.asarray(image.convert("RGBA"))
                under = pixels[pixels[..., 3] == 0][:, :3]
                pngs.add(path)
                kinds[image.mode, bool(len(under))] += 1
                hidden |= {value for value in (0, 255) if (under == value).all(axis=1).any()}
        size = ET.parse(path.with_suffix(".xml")).find("size")
        if size.findtext("width") == size.findtext("height") == "0":
            sizeless.add(path)
    assert sum(kinds.values()) == 37
    assert (kinds["RGBA", True], kinds["RGBA", False]) == (21, 4)
    assert (kinds["P", True], kinds["P", False], kinds["RGB", False]) == (3, 1, 8)
    assert hidden == {0, 255}
    assert sizeless == pngs
    assert len(unturned) == 3
    assert {path.parent.name for path in unturned} == {"test"}
    assert len(sides) > 100


@either("fruit")
def test_hidden_colours_of_the_fruit_set_become_white(fruit):
    found = []
    for path in fruit.rglob("*.jpg"):
        with Image.open(path) as image:
            if image.has_transparency_data:
                clear = np.asarray(image.convert("RGBA"))[..., 3] == 0
                found.append(np.asarray(decode(path.read_bytes(), path.name))[clear])
    assert sum(len(pixels) > 0 for pixels in found) == 24
    assert all((pixels == 255).all() for pixels in found)


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ("fruit", "put the Kaggle set into ../shared/data/fruit"),
        ("signs", "../shared/data/gtsrb5"),
        ("browser", "apt install chromium"),
        ("networks", "apt install iproute2"),
    ],
)
def test_what_is_missing_skips_a_test_and_fails_it_in_ci(need, words, monkeypatch, tmp_path):
    monkeypatch.setattr(conftest, "DATA", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=words):
        conftest.require(need)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=words):
        conftest.require(need)
    for name in ("chromium", "ip"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(conftest, "NETWORK_CAPABILITIES", ())
    for folder in ("fruit", "gtsrb5"):
        (tmp_path / folder).mkdir()
    conftest.require(need)


@pytest.mark.parametrize(
    ("imported", "fixtures", "heavy"),
    [
        ({"run": shell.command}, [], True),
        ({"subprocess": subprocess}, [], True),
        ({"np": np, "ROOT": conftest.ROOT, "run": pictures.write}, ["tmp_path"], False),
        ({"Pipeline": StableDiffusionPipeline}, [], True),
        ({"np": np}, ["tmp_path", "base"], True),
    ],
    ids=["a command", "a process", "pictures", "diffusers", "a small base"],
)
def test_quick_leaves_out_processes_and_diffusion_models(imported, fixtures, heavy):
    test = SimpleNamespace(
        module=SimpleNamespace(**imported), fixturenames=fixtures, iter_markers=lambda name: []
    )
    assert conftest.is_heavy(test) is heavy
