"""What a screen brings: arms with and without it, by hand-made records and by the command."""

import pipelines
import pytest
import stub_sampler
from runs import run, wrong_at
from shell import EVALUATE, command
from stub_sampler import FLAT, noise

from evaluate.analysis.analyse import ablations, analyse
from evaluate.report import html_page
from evaluate.report.html_page import Context
from orchard import shards

SMALL = ("--steps", 2, "--batch_size", 4, "--size", 32, "--seeds", 1, "--precision", "fp32")
WORDS = ("--data", "photos", "--controls", "screens", *SMALL)
RECORDS = [
    run(wrong_at(30)),
    run(wrong_at(30, 0), ratio=0.5),
    run(wrong_at(30, 0, 1, 2, 3, 4, 5, 6), ratio=0.5, arm="without_off_class"),
    run(wrong_at(30, 0, 1), ratio=0.5, arm="untuned"),
    run(wrong_at(30, 0), ratio=0.0, arm="without_flat"),
]


def test_the_change_is_from_the_set_without_the_screen_to_the_one_with_it():
    (found,) = ablations(RECORDS)
    assert (found.screen, found.arm.kind, found.arm.ratio) == ("off_class", "ratio", 0.5)
    assert found.change.after == pytest.approx(29 / 30)
    assert found.change.before == pytest.approx(23 / 30)
    assert found.change.points == pytest.approx(20)
    assert found.change.p == pytest.approx(2 / 2**6)  # six images turn, all of them one way


def test_the_page_shows_what_each_screen_rejected_and_brought():
    context = Context(title="x", commands=[], rejections={"off_class": 17})
    html = html_page.render(RECORDS, analyse(RECORDS), context)
    table = html[html.index("Effect of each screen") :]
    assert "off class" in table
    assert "<td>17</td>" in table
    assert "+20.0" in table
    assert "50/50, without the screen off class" in html


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A real set of two classes, and a way to draw four synthetic images of each into `shards`."""
    photos = stub_sampler.photos(tmp_path / "photos")
    base = pipelines.tiny(tmp_path / "base")

    def fill(draw=noise, **more):
        options = {"data": str(photos), "classes": stub_sampler.CLASSES, "count": 4, **more}
        stub_sampler.generate(monkeypatch, base, tmp_path / "shards", draw, **options)

    return fill


def test_the_command_leaves_each_screen_out_that_rejected_something(tmp_path, made):
    made(lambda one: FLAT if one.index == 1 else noise(one))
    output = command(tmp_path, *EVALUATE, *WORDS, "--ratios", 1, 0)
    assert "arm       0% real, without_flat: 0 real + 8 synthetic images" in output
    assert "Effect of each screen" in (tmp_path / "evaluation" / "report.html").read_text()


def test_screens_that_rejected_nothing_cannot_be_left_out(tmp_path, made):
    made()
    output = command(tmp_path, *EVALUATE, *WORDS, code=2)
    assert "error: --controls screens: no screen rejected an image of shards" in output


def test_candidates_that_were_not_chosen_are_no_screens_doing(tmp_path, made):
    made(lambda one: FLAT if one.index == 1 else noise(one), candidates=2, keep="random")
    folder = tmp_path / "shards"
    manifest = shards.read_manifest(folder)
    assert manifest["rejected"]["apple"] == {"flat": 1, "not chosen": 3}
    assert shards.rejections(manifest) == {"flat": 2}
    assert {row["reason"] for row in shards.rejected(folder, manifest)} == {"flat"}
    output = command(tmp_path, *EVALUATE, *WORDS, code=2)
    assert "error: --controls screens: shards has the chosen ones of several candidates" in output
