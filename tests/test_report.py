import base64
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evaluate import table
from evaluate.metrics import score
from evaluate.reference import FRUIT
from evaluate.report import Context, mistakes, render, write
from evaluate.statistics import summarise
from orchard.errors import UserError

CLASSES = ["apple", "banana", "orange"]
HOSTILE = ["<script>alert(1)</script>", "a & b]]>", '_"$x_1$" onload=alert(2)']
NOTICE = "rendered demo set: its numbers say nothing about photos"


class Page(HTMLParser):
    """Tags with their attributes, the text of each cell of each table, and all text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.text, self._cell = [], [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append((dict(attrs).get("class", ""), []))
        if tag == "tr":
            self.tables[-1][1].append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell.append(data + " ")

    def named(self, kind):
        return [rows for name, rows in self.tables if kind in name.split()]

    def images(self):
        return [attrs for tag, attrs in self.tags if tag == "img"]


def svg(image):
    head, data = image["src"].split(",", 1)
    assert head == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(data))


def svgs(page):
    return [svg(image) for image in page.images() if "svg" in image["src"][:20]]


def record(ratio, seed, wrong, *, classes=CLASSES, design="substitute", shots=None, n=30):
    rng = np.random.default_rng([seed, round(100 * ratio)])
    truth = [classes[i % 3] for i in range(n)]
    p = np.full((n, 3), 0.1)
    for i in range(n):
        p[i, (i + (i in wrong)) % 3] = 0.8
    p += rng.random((n, 3)) * 0.01
    p /= p.sum(axis=1, keepdims=True)
    predictions = [
        {"file": f"test/{i}.jpg", "truth": t, "probabilities": dict(zip(classes, map(float, q), strict=True))}
        for i, (t, q) in enumerate(zip(truth, p, strict=True))
    ]
    return {
        "design": design,
        "ratio": ratio,
        "shots": shots,
        "seed": seed,
        "steps": 400,
        "n_real": round(200 * ratio),
        "n_synthetic": round(200 * (1 - ratio)),
        **score(truth, p, classes),
        "classes": list(classes),
        "validation_accuracy": 0.9,
        "seconds": 1.5,
        "predictions": predictions,
    }


def sweep(classes=CLASSES):
    wrong = {1.0: [()] * 2, 0.5: [(0,), (0, 1)], 0.3: [(0, 1, 2)] * 2, 0.0: [range(8), range(10)]}
    return [
        record(ratio, seed, places[seed], classes=classes)
        for ratio, places in wrong.items()
        for seed in (0, 1)
    ]


def context(**more):
    return Context(title="fruit", command="python -m evaluate --ratios all", **more)


def image(value=200):
    return np.full((200, 300, 3), value, np.uint8)


def test_page_loads_nothing_and_runs_nothing():
    html = render(sweep(), context(sheet={"apple": {"real": [image()], "synthetic": [image(3)]}}))
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "poster", "action"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", html)


def test_every_image_has_alternative_text_and_decodes():
    page = Page(render(sweep(), context(sheet={"apple": {"real": [image()] * 9, "synthetic": [image(3)]}})))
    assert all(attrs["alt"].strip() for attrs in page.images())
    pictures = [attrs["src"] for attrs in page.images() if attrs["src"].startswith("data:image/png;base64,")]
    assert len(pictures) == 8 + 1
    small = Image.open(io.BytesIO(base64.b64decode(pictures[-1].split(",")[1])))
    assert small.size == (128, 85)
    assert small.getpixel((5, 5)) == (3, 3, 3)
    assert len(svgs(page)) == 2


def test_results_table_holds_the_means_of_the_records():
    records = sweep()
    (rows,) = Page(render(records, context())).named("results")
    assert [row[0].split(" ")[:2] for row in rows[1:]] == [
        ["100%", "real"],
        ["50/50", "100"],
        ["30/70", "60"],
        ["100%", "synthetic"],
    ]
    for row, ratio in zip(rows[1:], (1.0, 0.5, 0.3, 0.0), strict=True):
        values = [r["accuracy"] for r in records if r["ratio"] == ratio]
        assert row[1].startswith(f"{sum(values) / 2:.3f} ± {abs(values[0] - values[1]) / 2**0.5:.3f}")
    assert rows[3][2].startswith("\N{MINUS SIGN}10.0")


def test_weighted_and_macro_averages_are_both_shown():
    records = [record(1.0, 0, (0, 3, 6, 1), n=28)]
    (rows,) = Page(render(records, context())).named("averages")
    assert rows[2][1] == f"{records[0]['precision']:.3f}"
    assert rows[2][5] == f"{records[0]['macro']['precision']:.3f}"
    assert rows[2][1] != rows[2][5]


def test_confusion_matrices_are_summed_over_seeds():
    records = sweep()
    tables = Page(render(records, context())).named("confusion")
    shown = [[int(cell) for cell in row[1:]] for row in tables[-1][1:]]
    assert shown == (np.array(records[-1]["confusion"]) + np.array(records[-2]["confusion"])).tolist()


def test_recall_of_each_class_is_shown_for_each_ratio():
    (rows,) = Page(render(sweep(), context())).named("recall")
    # At ratio 0 images 0-7 and 0-9 are wrong: 3 and 4 of 10 apples.
    assert rows[0][1:] == CLASSES
    assert rows[4][1] == f"{(20 - 3 - 4) / 20:.3f}"


def test_reference_stands_beside_its_arms_only_where_given():
    rows = Page(render(sweep(), context(reference=FRUIT))).named("results")[0]
    assert [row[4] for row in rows[1:]] == ["0.9636 model 1", "\N{EN DASH}", "0.7455 model 4", "\N{EN DASH}"]
    plain = render(sweep(), context())
    assert "tudent report" not in plain
    assert "0.7455" not in plain


def test_reference_is_not_drawn_beside_another_design_or_low_shot_arms():
    records = [record(r, 0, (0,), design="augment") for r in (1.0, 0.3)]
    records += [record(r, 0, (0,), shots=4) for r in (1.0, 0.3)]
    assert "0.7455" not in render(records, context(reference=FRUIT))


def test_reference_is_drawn_into_the_ratio_curve():
    labels = ["".join(svgs(Page(render(sweep(), context(reference=r))))[0].itertext()) for r in (FRUIT, None)]
    assert "student report" in labels[0]
    assert "student report" not in labels[1]


def test_verdict_stands_in_the_head_of_the_page():
    records = sweep()
    text = " ".join(Page(render(records, context())).text.split())
    assert table.verdict(summarise(records)) in text[: text.index("Substitute: real images replaced")]


def test_what_the_generator_has_seen_is_stated():
    sentence = "the generator was tuned on 176 of the 220 real training images"
    assert sentence in render(sweep(), context(generator=[sentence]))
    assert sentence not in render(sweep(), context())


def test_notice_stands_at_the_top_and_beside_the_results():
    html = render(sweep(), context(notes=[NOTICE]))
    places = [m.start() for m in re.finditer(NOTICE, html)]
    assert places[0] < html.index('class="verdict"') < places[1] < html.index("<table")


def test_hostile_names_are_text_everywhere():
    evil = HOSTILE[0]
    page_text = render(
        sweep(HOSTILE),
        Context(
            title=evil,
            command=evil,
            notes=[evil],
            commit=evil,
            configuration={evil: evil, "nested": {evil: [evil]}},
            versions={evil: evil},
            provenance={evil: {evil: evil}},
            sheet={name: {"real": [image()]} for name in HOSTILE},
        ),
    )
    page = Page(page_text)
    assert "<script" not in page_text
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.named("recall")[0][0][1:] == HOSTILE
    chart = svgs(page)[1]
    assert not [node for node in chart.iter() if node.tag.endswith("}script")]
    assert not any(name.startswith("on") for node in chart.iter() for name in node.attrib)
    text = "".join(chart.itertext())
    assert "alert(1)" in text
    assert "$x_1$" in text


def test_worst_mistakes_are_the_surest_wrong_answers():
    records = [record(1.0, 0, (4,)), record(1.0, 1, (4, 5))]
    wrong = mistakes(records)
    surest = max(r["predictions"][4]["probabilities"]["orange"] for r in records)
    four = next(entry for entry in wrong if entry["file"] == "test/4.jpg")
    assert (four["truth"], four["predicted"], four["times"], four["runs"]) == ("banana", "orange", 2, 2)
    assert four["probability"] == surest
    assert [e["probability"] for e in wrong] == sorted((e["probability"] for e in wrong), reverse=True)
    assert Page(render(records, context())).named("mistakes")[0][1][0] == wrong[0]["file"]


def test_undefined_is_written_as_a_word():
    records = [record(1.0, 0, (), n=2), record(0.5, 0, (0,), n=2)]
    page = Page(render(records, context()))
    assert page.named("recall")[0][1][3] == "undefined"
    assert "it covers apple, banana alone" in " ".join(page.text.split())
    cells = {cell for _, rows in page.tables for row in rows for cell in row}
    assert cells.isdisjoint({"nan", "None"})


def test_equal_records_give_an_equal_page(tmp_path):
    first, second = (write(sweep(), context(), tmp_path / name) for name in ("a.html", "b.html"))
    assert first == tmp_path / "a.html"
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_file_name_outside_utf8_does_not_stop_the_report(tmp_path):
    odd = record(1.0, 0, (0,))
    odd["predictions"][0]["file"] = "caf\udce9.jpg"
    assert "caf\\udce9.jpg" in write([odd], context(), tmp_path / "r.html").read_text(encoding="utf-8")


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(UserError, match="no finished run"):
        render([], context())
    with pytest.raises(UserError, match="plum"):
        render([record(1.0, 0, ()), record(0.5, 0, (), classes=["apple", "banana", "plum"])], context())
