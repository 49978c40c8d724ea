"""Arms of every kind on one page: which stand together, what is said of their images, what was chosen."""

import pytest
from runs import run, wrong_at

from evaluate.analysis.analyse import analyse
from evaluate.report import html_page
from evaluate.report.html_page import Context
from evaluate.report.sections import OWN, sections

GIVEN = "the generator was tuned on 220 of the 220 real training images"
CHOICE = {"chosen": "weight 0.8", "tried": {"union": 0.3, "weight 0.8": 0.21}, "untried": ["cutmix"]}


def folds(ratio, wrong):
    files = [[f"{fold}-{i}" for i in range(9)] for fold in (0, 1)]
    return [
        run(wrong_at(9, *wrong), arm="fold", fold=fold, repeat=0, ratio=ratio, files=files[fold])
        for fold in (0, 1)
    ]


@pytest.fixture(scope="module")
def records():
    return [
        run(wrong_at(12)),
        run(wrong_at(12, 0), ratio=0.5),
        run(wrong_at(12, 0, 1), ratio=0.5, n_synthetic=0, arm="oversampled"),
        run(wrong_at(12, 3), arm="strong"),
        run(wrong_at(12, 3, 4), ratio=0.3, mixing="auto", mixing_choice=CHOICE),
        run(wrong_at(12, 0, 1, 2), shots=2),
        run(wrong_at(12, 0), shots=2, ratio=0.1),
        *folds(1.0, ()),
        *folds(0.5, (0, 1, 2)),
    ]


@pytest.fixture(scope="module")
def found(records):
    return sections(records, analyse(records), [GIVEN], None)


def test_mixtures_with_their_controls_low_shot_and_cross_validation_stand_apart(found):
    arms = {section["title"].split(":")[0]: [arm["label"] for arm in section["arms"]] for section in found}
    assert arms == {
        "Substitute": [
            "100% real",
            "50/50",
            "30/70, auto",
            "50/50, real part alone",
            "100% real, strong augmentation",
        ],
        "Cross-validation": ["100% real, cross-validated", "50/50, tuned, cross-validated"],
        "Low-shot": ["2-shot", "2-shot + tuned"],
    }


def test_what_generators_have_seen_is_said_of_their_own_arms_alone(found):
    assert [section["generator"] for section in found] == [[GIVEN], [OWN["fold"]], [OWN["shots"]]]


def test_each_part_has_its_curve(found):
    mixtures, crossed, low_shot = (section["curves"] for section in found)
    assert mixtures["accuracy"] and crossed["accuracy"] and not low_shot["accuracy"]
    assert low_shot["shots"] and not mixtures["shots"] and not crossed["shots"]


def test_a_chosen_mixing_stands_with_all_that_was_tried(records):
    html = html_page.render(records, analyse(records), Context(title="fruit", commands=["a", "b"]))
    table = html[html.index('class="choices"') :]
    table = table[: table.index("</table>")]
    assert "0.300" in table
    assert "<strong>0.210</strong>" in table
    assert "Not tried: cutmix." in table


def test_every_command_that_made_the_records_is_shown(records):
    html = html_page.render(records, analyse(records), Context(title="fruit", commands=["first", "second"]))
    assert "<pre>first</pre>" in html
    assert "<pre>second</pre>" in html


def test_where_real_images_alone_cannot_be_beaten_the_page_says_so(records):
    (line,) = [line for line in analyse(records).limits if "can find no arm better" in line]
    assert line.startswith(
        "100% real; 100% real, cross-validated; 2-shot: fewer than 6 test images are wrong"
    )


def test_cross_validation_carries_the_verdict_where_it_tests_the_most_images(records):
    assert analyse(records).verdict.startswith("In cross-validation, replacing 50% of the real images")
