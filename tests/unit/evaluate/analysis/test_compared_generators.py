"""Generators side by side: compared with the same real images alone, named apart, chosen ones first."""

import pytest
from runs import run, wrong_at

from evaluate.analysis.analyse import analyse
from evaluate.analysis.exchange_rate import exchange
from evaluate.analysis.generators import compared
from evaluate.analysis.labels import label
from evaluate.analysis.summary import summarise
from evaluate.analysis.verdict import main, verdict
from evaluate.report.fidelity import joined
from evaluate.report.html_page import Context, render

AUTO = "auto of untuned, tuned"
MEASURED = {
    "kind": "shots", "shots": 4, "generator": "untuned", "arm": "one", "images": 60,
    "share_near_train": 0.05, "kid": 0.2, "coverage": 0.4, "seconds_per_image": 1.5,
    "seconds_to_train": 42.0,
}  # fmt: skip


def seeds(places, **more) -> list[dict]:
    """Three runs, which are wrong at these places and at one of their own."""
    return [run(wrong_at(30, *places, 20 + seed), seed=seed, **more) for seed in range(3)]


def low_shot(shots=4) -> list[dict]:
    few = {"shots": shots, "n_real": 3 * shots}
    return [
        *seeds(range(9), **few),
        *seeds(range(6), **few, ratio=0.2, generator="untuned", n_synthetic=60),
        *seeds(range(12), **few, ratio=0.2, generator="tuned", n_synthetic=60),
        *seeds(range(6), **few, ratio=0.2, generator=AUTO, n_synthetic=60),
    ]


def test_every_generator_is_compared_with_the_same_few_real_images():
    found = compared([*low_shot(4), *low_shot(8)], [MEASURED])
    assert [(one.arm.shots, one.arm.generator) for one in found] == [
        (shots, by) for shots in (4, 8) for by in ("none", "untuned", "tuned", AUTO)
    ]
    points = [one.row.change and one.row.change.points for one in found]
    assert points == [None, pytest.approx(10), pytest.approx(-10), pytest.approx(10)] * 2
    assert [one.measured for one in found] == [None, MEASURED, *[None] * 6]
    assert all(one.row.change.p_mean_holm >= one.row.change.p_mean for one in found if one.row.change)


def test_a_mixture_is_compared_with_its_real_part_and_not_with_all_real_images():
    records = [
        *seeds((), arm="fold", fold=0),
        *seeds(range(9), arm="fold", fold=0, ratio=0.5, generator="none"),
        *seeds(range(3), arm="fold", fold=0, ratio=0.5, generator="tuned"),
        *seeds(()),
        *seeds(range(9), ratio=0.5, arm="oversampled"),
        *seeds(range(3), ratio=0.5, generator="untuned"),
        *seeds(range(3), ratio=0.0, generator="untuned"),
    ]
    changes = {
        (one.arm.kind, one.arm.ratio, one.arm.generator): one.row.change for one in compared(records, [])
    }
    assert {key: change and round(change.points) for key, change in changes.items()} == {
        ("fold", 1.0, "none"): None,
        ("fold", 0.5, "none"): None,
        ("fold", 0.5, "tuned"): 20,
        ("ratio", 1.0, "none"): None,
        ("oversampled", 0.5, "none"): None,
        ("ratio", 0.5, "untuned"): 20,
        ("ratio", 0.0, "untuned"): None,
    }
    against_all = {
        (row.arm.kind, row.arm.generator): row.change for row in summarise(records) if row.arm.ratio == 0.5
    }
    assert against_all["fold", "tuned"].points == pytest.approx(-10)


def test_a_sweep_over_a_given_set_alone_compares_no_generators():
    assert compared([*seeds(()), *seeds((1,), ratio=0.5)], []) == []


def test_arms_are_named_after_their_generator_unless_it_goes_without_saying():
    records = [*low_shot(), *seeds((), ratio=0.5, generator="tuned"), *seeds((), ratio=0.5)]
    records += seeds((), arm="fold", fold=0, ratio=0.5, generator="none")
    assert {label(row.arm) for row in summarise(records)} == {
        "4-shot", "4-shot + untuned", "4-shot + tuned", "4-shot + auto",
        "50/50", "50/50, tuned", "50/50, real part alone, cross-validated",
    }  # fmt: skip


def test_the_verdict_is_about_the_generator_that_validation_images_chose():
    rows = summarise(low_shot())
    assert main(rows).arm.generator == AUTO
    assert verdict(rows).startswith("Adding 60 synthetic images (auto) to 12 real ones")
    first = summarise(record for record in low_shot() if record.get("generator") != AUTO)
    assert main(first).arm.generator == "untuned"


def test_the_worth_of_images_is_that_of_one_generator():
    records = [one for shots, right in ((2, 0), (4, 3), (8, 6)) for one in worth(shots, right)]
    rates = {by: exchange(records, "shots", by) for by in ("untuned", "tuned")}
    assert rates["untuned"].rate < rates["tuned"].rate
    assert rates["untuned"].source == "untuned, from each arm's own real images"
    found = analyse(records)
    assert {rate.source for rate in found.exchanges} == {rate.source for rate in rates.values()}


def worth(shots: int, right: int) -> list[dict]:
    few = {"shots": shots, "n_real": 3 * shots}
    more = {**few, "n_synthetic": 60}
    return [
        *seeds(range(14 - right), **few),
        *seeds(range(7 - right), **more, ratio=0.1, generator="untuned"),
        *seeds(range(13 - right), **more, ratio=0.1, generator="tuned"),
    ]


def test_the_page_shows_what_is_known_of_each_and_a_dash_for_the_rest():
    records = low_shot()
    analysis = analyse(records, measured=[MEASURED])
    page = render(records, analysis, Context(title="x", commands=["evaluate"]))
    assert "Generators side by side" in page
    assert page.count("5.0%</td><td>1.5</td><td>42</td>") == 1


def test_what_images_cost_stays_known_when_they_are_measured_again():
    unknown = {"seconds_per_image": None, "seconds_to_train": None}
    again = MEASURED | unknown | {"kid": 0.3}
    other = MEASURED | unknown | {"generator": "tuned"}
    assert joined([MEASURED], [again, other]) == [MEASURED | {"kid": 0.3}, other]
