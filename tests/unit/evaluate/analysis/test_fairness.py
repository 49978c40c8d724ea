"""Warnings about mixtures whose worst class pays for the others."""

from pages import Page, context
from runs import run, wrong_at

from evaluate.analysis.analyse import analyse
from evaluate.report import html_page

REAL = wrong_at(30, 1, 4, 7, 2, 5, 8)
"""Three of ten bananas and three of ten oranges wrong."""
BOUGHT = wrong_at(30, 1, 4, 7, 10)
"""Fewer mistakes, but four bananas."""
FAIR = wrong_at(30, 1, 4, 7)
WORSE = wrong_at(30, 1, 4, 7, 10, 2, 5, 8)


def both(mixed, **more):
    return [run(right, ratio=ratio, **more) for ratio, right in ((1.0, REAL), (0.3, mixed))]


def test_the_worst_class_that_falls_while_accuracy_rises_is_named_with_its_interval():
    records = both(BOUGHT)
    (line,) = analyse(records).fairness
    assert line.startswith("30/70 raises the accuracy by +6.7 points, but the lowest recall falls: ")
    assert "banana had it with 70.0%, now banana with 60.0%" in line
    assert "(\N{MINUS SIGN}10.0 points, 95% interval " in line
    assert line.endswith(", which chance alone may do")
    page = Page(html_page.render(records, analyse(records), context()))
    assert line in " ".join(page.text.split())


def test_a_class_that_becomes_the_worst_one_is_told_from_the_one_that_was():
    (line,) = analyse(both(wrong_at(30, 0, 3, 6, 9))).fairness
    assert "banana had it with 70.0%, now apple with 60.0%" in line


def test_no_warning_where_the_worst_class_holds_or_nothing_is_gained():
    assert not analyse(both(FAIR)).fairness
    assert not analyse(both(WORSE)).fairness
    assert not analyse(both(BOUGHT)[:1]).fairness


def test_the_warning_is_of_further_sets_as_well():
    records = both(FAIR)
    for record, there in zip(records, both(BOUGHT), strict=True):
        record["external"] = {"shelf": {"predictions": there["predictions"]}}
    (line,) = analyse(records).fairness
    assert line.startswith("on shelf, 30/70 raises the accuracy by +6.7 points")


def test_only_runs_that_both_arms_have_are_compared():
    others = [run(FAIR, ratio=0.3, seed=seed) for seed in (1, 2)]
    (line,) = analyse([*both(BOUGHT, seed=0), *others]).fairness
    assert "banana had it with 70.0%, now banana with 60.0%" in line
    assert not analyse(
        [*both(FAIR, seed=0), *(run(BOUGHT, ratio=0.3, seed=seed) for seed in (1, 2))]
    ).fairness
