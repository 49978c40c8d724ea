"""The page as text: what stands where, that it loads nothing, and that names stay names."""

import base64
import io
import re

import numpy as np
import pytest
from pages import Page, context, svgs
from PIL import Image
from runs import CLASSES, run, sweep, wrong_at

from evaluate.analysis.analyse import analyse
from evaluate.analysis.intervals import Spread
from evaluate.analysis.mistakes import worst
from evaluate.analysis.student_report import FRUIT
from evaluate.gap.feature_metrics import Area, Gap, Manifold
from evaluate.report import html_page
from evaluate.report.html_page import Context, require_records
from evaluate.report.pictures import thumbnail
from orchard.errors import UserError

HOSTILE = ["<script>alert(1)</script>", "a & b]]>", '_"$x_1$" onload=alert(2)']
NOTICE = "rendered demo set: its numbers say nothing about photos"
WRONG = {1.0: [()] * 2, 0.5: [(0,), (0, 1)], 0.3: [(0, 1, 2)] * 2, 0.0: [range(8), range(10)]}


def image(value=200):
    return {"src": thumbnail(Image.new("RGB", (300, 200), (value,) * 3)), "note": f"grey {value}"}


def sheet(name="apple", real=1, kept=1, rejected=0):
    return {
        "name": name,
        "real": [image()] * real,
        "kept": [image(3)] * kept,
        "rejected": [image(9)] * rejected,
        "reasons": {"off-class": rejected} if rejected else {},
    }


def page_of(records, context):
    return html_page.render(records, analyse(records), context)


@pytest.fixture(scope="module")
def plain():
    """The page of a ratio sweep with nothing around it."""
    return page_of(sweep(WRONG), context())


@pytest.fixture(scope="module")
def quoting():
    """The same, with the student report's figures and a sheet of images."""
    return page_of(sweep(WRONG), context(reference=FRUIT, sheets=[sheet(real=9, rejected=2)]))


def test_page_loads_nothing_and_runs_nothing(quoting):
    page = Page(quoting)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "poster", "action"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", quoting)


def test_every_image_has_alternative_text_and_decodes(quoting):
    page = Page(quoting)
    assert all(attrs["alt"].strip() for attrs in page.images())
    pictures = [attrs["src"] for attrs in page.images() if attrs["src"].startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 9 + 1 + 2
    small = Image.open(io.BytesIO(base64.b64decode(pictures[-1].split(",")[1])))
    assert small.size == (128, 85)
    assert small.getpixel((5, 5)) == (9, 9, 9)
    # The differences in the head, accuracy, the four averages, and recall of each class.
    assert len(svgs(page)) == 7


def test_rejected_images_stand_with_their_reason():
    rejected = sheet(rejected=1) | {"rejected": [image() | {"note": "off-class <0.2>"}]}
    page = Page(page_of([run(wrong_at(6))], context(sheets=[rejected])))
    assert any(attrs["alt"] == "rejected apple: off-class <0.2>" for attrs in page.images())
    assert "off-class <0.2>" in page.text


def test_results_table_holds_the_means_of_the_records(plain):
    records = sweep(WRONG)
    (rows,) = Page(plain).named("results")
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
    records = [run(wrong_at(28, 0, 3, 6, 1))]
    (rows,) = Page(page_of(records, context())).named("averages")
    assert rows[2][1] == f"{records[0]['precision']:.3f}"
    assert rows[2][5] == f"{records[0]['macro']['precision']:.3f}"
    assert rows[2][1] != rows[2][5]


def test_confusion_matrices_are_summed_over_seeds(plain):
    records = sweep(WRONG)
    tables = Page(plain).named("confusion")
    shown = [[int(cell) for cell in row[1:]] for row in tables[-1][1:]]
    assert shown == (np.array(records[-1]["confusion"]) + np.array(records[-2]["confusion"])).tolist()


def test_recall_of_each_class_is_shown_for_each_ratio(plain):
    (rows,) = Page(plain).named("recall")
    # At ratio 0 images 0-7 and 0-9 are wrong: 3 and 4 of 10 apples.
    assert rows[0][1:] == list(CLASSES)
    assert rows[4][1].startswith(f"{(20 - 3 - 4) / 20:.3f} ")


def test_reference_stands_beside_its_arms_only_where_given(plain, quoting):
    rows = Page(quoting).named("results")[0]
    assert [row[6] for row in rows[1:]] == ["0.9636 model 1", "\N{EN DASH}", "0.7455 model 4", "\N{EN DASH}"]
    assert "tudent report" not in plain
    assert "0.7455" not in plain


def test_reference_is_not_drawn_beside_another_design_or_low_shot_arms():
    records = [run(wrong_at(30, 0), ratio=r, design="augment") for r in (1.0, 0.3)]
    records += [run(wrong_at(30, 0), ratio=r, shots=4) for r in (1.0, 0.3)]
    assert "0.7455" not in page_of(records, context(reference=FRUIT))


def test_reference_is_drawn_into_the_curves_of_accuracy_and_averages(plain, quoting):
    known = ["student report" in "".join(chart.itertext()) for chart in svgs(Page(quoting))]
    # Differences, accuracy, then precision, recall, F1 and ROC-AUC, then recall of each class.
    assert known == [False, True, True, True, True, True, False]
    assert not any("student report" in "".join(chart.itertext()) for chart in svgs(Page(plain)))


def test_head_is_the_verdict_one_figure_and_one_caveat(plain):
    found, head = analyse(sweep(WRONG)), plain[plain.index("<header>") : plain.index("</header>")]
    text = " ".join(Page(head).text.split())
    assert text.index(found.verdict) < text.index("Keep in mind. " + found.caveat)
    (figure,) = svgs(Page(head))
    drawn = "".join(figure.itertext())
    assert all(name in drawn for name in ("50/50", "30/70", "100% synthetic"))
    assert "in colour the mixture with the least real images that still has some" in text
    assert "KID" not in text and "cannot be resolved" not in text
    assert text.index("Keep in mind") < " ".join(Page(plain).text.split()).index(found.basis)


@pytest.mark.heavy
def test_the_figure_of_the_head_names_the_arms_that_it_leaves_out():
    records = [
        run(wrong_at(30, seed), ratio=ratio, seed=seed) for ratio in np.linspace(1, 0, 16) for seed in (0, 1)
    ]
    text = " ".join(Page(page_of(records, context())).text.split())
    assert "12 of 15 arms, the others are in the tables" in text
    figure = svgs(Page(page_of(records, context())))[0]
    assert "7/93" in "".join(figure.itertext())


def test_the_axis_follows_our_arms_and_a_figure_quoted_below_stands_at_its_foot():
    records = [
        run(wrong_at(55, seed), ratio=ratio, seed=seed) for ratio in (1.0, 0.5, 0.3) for seed in (0, 1)
    ]
    curve = svgs(Page(page_of(records, context(reference=FRUIT))))[1]
    words = ["".join(node.itertext()) for node in curve.iter() if node.tag.endswith("}text")]
    assert "0.746" in words
    ticks = [float(word) for word in words if re.fullmatch(r"[01]\.\d+", word) and word != "0.746"]
    assert min(ticks) > 0.77


def test_two_hundred_classes_make_a_page_of_the_worst_ones():
    names = [f"class {i:03}" for i in range(200)]
    wrong = [i for i in range(400) if i % 200 in (7, 150)]
    html = page_of(
        [run(wrong_at(400, *wrong), classes=names), run(wrong_at(400), classes=names, ratio=0.5)], context()
    )
    assert len(html) < 300_000
    page = Page(html)
    assert not page.named("confusion")
    recall, mistaken = page.named("recall")[0], page.named("mistaken")[0]
    assert len(recall) == 1 + 20
    assert [row[0] for row in recall[1:3]] == ["class 007", "class 150"]
    assert mistaken[1:] == [["class 007", "class 008", "2 of 2"], ["class 150", "class 151", "2 of 2"]]


def test_of_many_classes_those_that_are_told_apart_best_are_shown():
    area = {f"class {i:03}": Area(area=i / 200, interval=(0.0, 1.0)) for i in range(199)} | {"few": None}
    same = Manifold(precision=1.0, recall=1.0, density=1.0, coverage=1.0)
    gap = Gap(
        images=9,
        reference=9,
        each={"few": 2, "class 000": 30},
        kid=Spread(0.1, 0.01),
        manifold=same,
        discriminator=area,
    )
    page = Page(page_of([run(wrong_at(9))], context(gaps={"network": {"synthetic": gap}})))
    (told,) = page.named("told")
    assert [row[0] for row in told[1:]] == [f"class {i:03}" for i in range(198, 178, -1)]
    assert told[1][1] == "0.990 0.000 to 1.000"
    assert "2 to 30 of a class at a time" in page.named("gap")[0][1][0]


@pytest.mark.heavy
def test_what_is_no_worse_is_established_or_not():
    rows = Page(
        page_of([*sweep({1.0: [()] * 3, 0.5: [()] * 3, 0.3: [range(9)] * 3}, n=600)], context())
    ).named("results")[0]
    assert [row[3] for row in rows[1:]] == ["\N{EN DASH}", "established", "not established"]
    rows = Page(page_of([run(wrong_at(9)), run(wrong_at(9), ratio=0.5)], context())).named("results")[0]
    assert rows[2][3] == "one seed"


def test_a_change_says_when_it_is_of_fewer_runs_than_the_arm():
    records = [run(wrong_at(30), seed=seed) for seed in range(2)]
    records += [run(wrong_at(30, 0), seed=seed, ratio=0.5) for seed in range(5)]
    rows = Page(page_of(records, context())).named("results")[0]
    assert rows[2][2].endswith("2 runs") and rows[2][6] == "5"


def test_what_the_generator_has_seen_is_stated(plain):
    sentence = "the generator was tuned on 176 of the 220 real training images"
    assert sentence in page_of([run(wrong_at(6))], context(generator=[sentence]))
    assert sentence not in plain


def test_notice_stands_at_the_top_and_beside_the_results():
    html = page_of([run(wrong_at(6))], context(notes=[NOTICE]))
    places = [m.start() for m in re.finditer(NOTICE, html)]
    assert places[0] < html.index('class="verdict"') < places[1] < html.index("<table")


def test_every_commit_that_trained_a_classifier_is_named():
    html = page_of([run(wrong_at(6))], context(commits=["abc1", "def2+"]))
    assert "trained at commit abc1, def2+ (+: with uncommitted changes)" in html
    assert "with uncommitted" not in page_of([run(wrong_at(6))], context(commits=["abc1"]))
    assert "commit unknown (not run from a checkout)" in page_of([run(wrong_at(6))], context())


def test_hostile_names_are_text_everywhere():
    evil = HOSTILE[0]
    page_text = page_of(
        sweep(WRONG, classes=HOSTILE),
        Context(
            title=evil,
            commands=[evil],
            notes=[evil],
            commits=[evil],
            configuration={evil: evil, "nested": {evil: [evil]}},
            versions={evil: evil},
            provenance={evil: {evil: evil}},
            generator=[evil],
            copies=evil,
            hashes={evil: evil},
            sheets=[sheet(name, rejected=1) for name in HOSTILE],
            pictures={"test/0.jpg": {"image": image() | {"note": evil}}},
        ),
    )
    page = Page(page_text)
    assert "<script" not in page_text
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.named("recall")[0][0][1:] == HOSTILE
    chart = svgs(page)[-1]
    assert not [node for node in chart.iter() if node.tag.endswith("}script")]
    assert not any(name.startswith("on") for node in chart.iter() for name in node.attrib)
    text = "".join(chart.itertext())
    assert "alert(1)" in text
    assert "$x_1$" in text


def test_worst_mistakes_are_the_surest_wrong_answers():
    records = [run(wrong_at(30, 4)), run(wrong_at(30, 4, 5), seed=1)]
    wrong = worst(records)
    surest = max(r["predictions"][4]["probabilities"]["orange"] for r in records)
    four = next(entry for entry in wrong if entry["file"] == "test/4.jpg")
    assert (four["truth"], four["predicted"], four["wrong"], four["runs"]) == ("banana", "orange", 2, 2)
    assert four["probability"] == surest
    assert [e["probability"] for e in wrong] == sorted((e["probability"] for e in wrong), reverse=True)
    nearest = {"image": image(), "real": image() | {"note": "orange: train/7.jpg", "similarity": 0.875}}
    page = Page(page_of(records, context(pictures={"test/4.jpg": nearest})))
    text = " ".join(page.text.split())
    assert text.index("test/4.jpg") < text.index("nearest real, 0.88") < text.index("test/5.jpg")
    assert any(attrs["alt"] == "nearest real training image: orange: train/7.jpg" for attrs in page.images())


def test_undefined_is_written_as_a_word():
    records = [run(wrong_at(2)), run(wrong_at(2, 0), ratio=0.5)]
    page = Page(page_of(records, context()))
    assert page.named("recall")[0][1][3] == "undefined"
    assert "it covers apple, banana alone" in " ".join(page.text.split())
    cells = {cell for _, rows in page.tables for row in rows for cell in row}
    assert cells.isdisjoint({"nan", "None"})


def test_equal_records_give_an_equal_page(tmp_path):
    records = sweep(WRONG)
    first, second = (
        html_page.write(records, analyse(records), context(), tmp_path / name)
        for name in ("a.html", "b.html")
    )
    assert first == tmp_path / "a.html"
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_file_name_outside_utf8_does_not_stop_the_report(tmp_path):
    odd = run(wrong_at(6, 0), files=["caf\udce9.jpg", *"bcdef"])
    page = html_page.write([odd], analyse([odd]), context(), tmp_path / "r.html")
    assert "caf\\udce9.jpg" in page.read_text(encoding="utf-8")


def test_records_that_do_not_belong_together_are_refused():
    with pytest.raises(UserError, match="no finished run"):
        require_records([])
    with pytest.raises(UserError, match="plum"):
        require_records([run(wrong_at(3)), run(wrong_at(3), classes=["apple", "banana", "plum"])])
