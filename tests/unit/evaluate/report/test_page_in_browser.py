"""The report page as a person opens it: from disk, in headless Chromium, narrow and wide, light and dark.

Needs the package playwright (of the dev extra) and a Chromium on the PATH; nothing is downloaded.
"""

import re

import numpy as np
import pytest
from PIL import Image
from runs import CLASSES, run, sweep, wrong_at

from evaluate.analysis.analyse import analyse
from evaluate.analysis.student_report import FRUIT
from evaluate.gap.feature_metrics import Cloud, measure
from evaluate.report import html_page
from evaluate.report.html_page import Context
from evaluate.report.pictures import thumbnail

pytestmark = pytest.mark.needs("browser")

WRONG = {1.0: [(), (3,)], 0.5: [(0,), (0, 1)], 0.3: [(0, 1, 2), (0, 2)], 0.0: [range(8), range(10)]}
LONG = "an extraordinarily long class name without an end " * 3
EVIL = "<img src=x onerror=alert(1)>"


def records():
    plain = sweep(WRONG, n=55)
    low_shot = [
        run(
            wrong_at(55, *range(wrong)),
            ratio=ratio,
            shots=shots,
            seed=seed,
            n_real=3 * shots,
            n_synthetic=added,
        )
        for shots, alone, helped in ((1, 30, 14), (4, 14, 9), (16, 6, 5))
        for ratio, wrong, added in ((1.0, alone, 0), (0.1, helped, 150))
        for seed in (0, 1)
    ]
    external = {"supermarket": {"accuracy": 0.8, "predictions": plain[0]["predictions"]}}
    return [{**record, "external": external} for record in plain] + low_shot


def picture(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return {"src": thumbnail(Image.fromarray(noise)), "note": EVIL}


def context():
    rng = np.random.default_rng(0)

    def cloud(shift):
        return Cloud(features=rng.normal(shift, 1, (60, 8)), labels=np.arange(60) % 3)

    gaps = {
        side: measure(cloud(shift), cloud(0), CLASSES, dict.fromkeys(range(3), 20))
        for side, shift in (("synthetic", 0.5), ("test", 0.0))
    }
    sheet = {
        "real": [picture(1)] * 9,
        "kept": [picture(2)] * 9,
        "rejected": [picture(3)] * 3,
        "reasons": {EVIL: 3},
    }
    return Context(
        title=EVIL,
        commands=["python -m evaluate --ratios all --synthetic " + "a_long_folder_name/" * 12],
        notes=[EVIL],
        gaps={"our real-trained classifier": gaps},
        sheets=[{"name": name, **sheet} for name in (*CLASSES, LONG)],
        pictures={
            f"test/{i}.jpg": {"image": picture(4), "real": picture(5) | {"similarity": 0.9}} for i in range(9)
        },
        hashes={"records.jsonl": "0123456789abcdef" * 4},
        configuration={"steps": 400},
        reference=FRUIT,
    )


@pytest.fixture(scope="module")
def analysis():
    strata = {f"test/{i}.jpg": {"background": ("white", "scene")[i % 2], "objects": "one"} for i in range(55)}
    return analyse(records(), strata=strata)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, analysis):
    return html_page.write(records(), analysis, context(), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def opened(browser, page_file):
    """Open the page at a width and in a colour scheme; every message and request of it is kept."""
    pages = []

    def open_page(width=390, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        pages.append(page)
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("dialog", lambda dialog: page.problems.append(dialog.message))
        page.on("request", lambda request: page.problems.append(request.url))
        page.goto(page_file.as_uri())
        page.problems.remove(page_file.as_uri())
        page.problems = [problem for problem in page.problems if not problem.startswith("data:")]
        return page

    yield open_page
    for page in pages:
        page.close()


def test_page_opens_from_disk_without_an_error_or_a_request(opened):
    for width in (390, 1280):
        assert opened(width).problems == []


def test_every_picture_is_drawn_and_has_a_text_alternative(opened):
    page = opened()
    images = page.locator("img").all()
    assert len(images) > 60
    for image in images:
        assert image.evaluate("image => image.complete && image.naturalWidth") > 0
        assert image.get_attribute("alt").strip()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_is_never_wider_than_the_screen(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 1280])
def test_two_hundred_classes_do_not_widen_the_page(browser, tmp_path, width):
    classes = [f"a class of many {i}" for i in range(200)]
    many = [run(wrong_at(400, *range(9)), ratio=ratio, classes=classes) for ratio in (1.0, 0.3, 0.0)]
    file = html_page.write(many, analyse(many), Context(title="many", commands=[]), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_figures_on_the_page_are_those_of_the_analysis(opened, analysis):
    page = opened(1280)
    assert page.locator(".verdict").inner_text() == analysis.verdict
    shown = [
        re.match(r"[\d.]+", cell.inner_text())[0] for cell in page.locator(".results td:nth-child(2)").all()
    ]
    assert shown == [f"{row.weighted['accuracy'].mean:.3f}" for row in analysis.rows]
    assert len(analysis.exchanges) == 2
    curves = page.locator('img[alt^="Accuracy over real images plus"]').all()
    for rate, curve in zip(analysis.exchanges, curves, strict=True):
        assert f"one real image = {rate.rate:.3g} synthetic" in page.locator(".key").inner_text()
        alternative = curve.get_attribute("alt")
        assert all(f"{point.accuracy:.3f}, law {point.fitted:.3f}" in alternative for point in rate.points)


def test_names_from_data_stay_text(opened):
    page = opened()
    assert page.locator("h1").inner_text() == EVIL
    assert page.locator("img[src='x']").count() == 0


def test_text_is_readable_in_both_schemes(opened):
    """Contrast of body text at least 7:1 (WCAG 2, level AAA)."""

    def luminance(colour):
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for scheme in ("light", "dark"):
        style = opened(scheme=scheme).evaluate(
            "(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))"
        )
        dark, light = sorted(map(luminance, style))
        assert (light + 0.05) / (dark + 0.05) >= 7


def test_captions_beside_a_mistake_use_the_width_of_a_narrow_screen(opened):
    figures = opened(390).locator(".beside >> nth=0").locator("figure").all()
    widths = [figure.bounding_box()["width"] for figure in figures]
    assert len(widths) == 2 and min(widths) > 130


def test_wide_tables_can_be_scrolled_by_keyboard(opened):
    regions = opened().locator("[role=region]")
    assert regions.count() > 5
    for region in regions.all():
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label")
