"""Further real sets: the statistics of each arm there, and how they join a sweep that is finished."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import Page, context
from runs import CLASSES, run, wrong_at
from squares import write_images, write_shards
from statsmodels.stats.proportion import proportion_confint

from evaluate.analysis import external_sets
from evaluate.analysis.analyse import analyse
from evaluate.analysis.intervals import mean_interval
from evaluate.command import evaluate
from evaluate.config import Evaluate
from evaluate.records import records
from evaluate.report import export, html_page

SHELF = [wrong_at(40), wrong_at(40, 0, 3, 6, 9, 12, 15, 18, 1)]
"""Real images alone are right; the mixture is wrong about 7 of 14 apples and 1 of 13 bananas."""


def uneven(right):
    """Predictions for 14 apples, 13 bananas and 3 oranges."""
    found = run(right)["predictions"]
    kept: Counter[str] = Counter()
    few = []
    for prediction in found:
        kept[prediction["truth"]] += 1
        if prediction["truth"] != "orange" or kept["orange"] <= 3:
            few.append(prediction)
    return few


@pytest.fixture(scope="module")
def scored():
    """Two seeds of two arms, alike on the test set, apart on the shelf."""
    return [
        run(wrong_at(30), ratio=ratio, seed=seed, external={"shelf": {"predictions": uneven(right)}})
        for ratio, right in zip((1.0, 0.3), SHELF, strict=True)
        for seed in (0, 1)
    ]


@pytest.mark.heavy
def test_an_arm_has_the_statistics_of_the_test_set_on_a_further_set(scored):
    real, mixed = external_sets.external_results(scored)
    assert (real.name, real.row.n_test, real.row.runs, real.row.change) == ("shelf", 30, 2, None)
    assert mixed.row.weighted["accuracy"].mean == pytest.approx(22 / 30)
    change = mixed.row.change
    assert change.points == pytest.approx(-800 / 30)
    assert change.p == pytest.approx(2 * 0.5**8)
    low, high = change.interval
    assert low < change.points < high < 0


@pytest.mark.heavy
def test_the_verdict_says_what_its_arm_does_on_a_further_set(scored):
    analysis = analyse(scored)
    (line,) = analysis.on_other_sets
    assert line.startswith(
        "On shelf, 30 images of another source, it changed mean accuracy by −26.7 points ("
    )
    assert ", balanced accuracy by −19.2 (" in line and line.endswith(": a loss.")
    assert "a loss" not in analysis.verdict
    assert analyse([{**record, "external": {}} for record in scored]).on_other_sets == []


@pytest.mark.heavy
def test_every_class_counts_alike_in_the_balanced_accuracy(scored):
    _, mixed = external_sets.external_results(scored)
    assert {name: part.images for name, part in mixed.recalls.items()} == dict(
        zip(CLASSES, (14, 13, 3), strict=True)
    )
    assert [part.accuracy.mean for part in mixed.recalls.values()] == pytest.approx([7 / 14, 12 / 13, 1])
    assert mixed.balanced.accuracy.mean == pytest.approx((7 / 14 + 12 / 13 + 1) / 3)
    assert mixed.balanced.points == pytest.approx(100 * ((7 / 14 + 12 / 13 + 1) / 3 - 1))
    wilson = np.array(
        [proportion_confint(*counts, method="wilson") for counts in ((7, 14), (12, 13), (3, 3))]
    )
    halves = np.linalg.norm(wilson.T - np.array([7 / 14, 12 / 13, 1]), axis=1) / 3
    mean = mixed.balanced.accuracy.mean
    assert mixed.balanced.interval == pytest.approx((mean - halves[0], mean + halves[1]))


def test_the_mean_of_independent_estimates_has_the_interval_of_their_halves_in_squares():
    low, high = mean_interval([0.5, 0.9], [(0.2, 0.6), (0.5, 1.0)])
    assert (low, high) == pytest.approx((0.7 - 0.25, 0.7 + (0.1**2 + 0.1**2) ** 0.5 / 2))


@pytest.mark.heavy
def test_a_class_without_images_there_has_no_recall(scored):
    without = [
        {**record, "external": {"shelf": {"predictions": [p for p in there if p["truth"] != "orange"]}}}
        for record in scored
        for there in [record["external"]["shelf"]["predictions"]]
    ]
    _, mixed = external_sets.external_results(without)
    assert list(mixed.recalls) == ["apple", "banana"]
    assert mixed.balanced.accuracy.mean == pytest.approx((7 / 14 + 12 / 13) / 2)


@pytest.mark.heavy
def test_the_numbers_stand_in_the_files_and_on_the_page(scored, tmp_path):
    analysis = analyse(scored)
    export.write(scored, analysis, tmp_path)
    with (tmp_path / "arms.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scored_on"], row["label"]) for row in rows] == [
        ("test", "100% real"), ("test", "30/70"), ("shelf", "100% real"), ("shelf", "30/70"),
    ]  # fmt: skip
    assert float(rows[3]["accuracy_mean"]) == pytest.approx(22 / 30)
    assert float(rows[3]["recall_apple_mean"]) == pytest.approx(0.5)
    assert float(rows[3]["recall_apple_change_points"]) == pytest.approx(-50)
    whole = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))["elsewhere"]
    assert whole[1]["row"]["change"]["p"] == pytest.approx(2 * 0.5**8)
    assert whole[1]["balanced"]["points"] == pytest.approx(float(rows[3]["balanced_change_points"]))
    page = Page(html_page.render(scored, analysis, context()))
    (table,) = page.named("elsewhere")
    assert table[2][1].startswith("0.733") and table[2][2].startswith("\N{MINUS SIGN}26.7")
    (recalls,) = page.named("recalls")
    assert recalls[2][1].startswith("0.500") and "Δ \N{MINUS SIGN}50.0" in recalls[2][1]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Options of a sweep of seconds, on two classes with a synthetic set beside them."""
    monkeypatch.setattr("orchard.devices.torch_dtype", lambda precision, device: torch.float32)
    write_images(tmp_path / "photos" / "train", {"x": 6, "y": 6})
    write_images(tmp_path / "photos" / "test", {"x": 2, "y": 2}, seed=1)
    write_images(tmp_path / "shelf", {"x": 3, "y": 2}, seed=2)
    write_images(tmp_path / "street", {"x": 2, "y": 3}, seed=3)
    write_shards(tmp_path / "shards", [], count=8)
    monkeypatch.chdir(tmp_path)

    def config(**options) -> Evaluate:
        usual = {"data": "photos", "steps": 2, "batch_size": 4, "seeds": 1, "ratios": ("1", "0.5")}
        return Evaluate(**usual | options)

    return config


def scores() -> list[dict[str, int]]:
    """Of each run, images of each external set."""
    found = records.read(Path("evaluation"))
    return [{name: len(s["predictions"]) for name, s in record["external"].items()} for record in found]


@pytest.mark.heavy
def test_external_sets_join_a_finished_sweep_by_training_it_again(small, capsys, refused):
    evaluate(small())
    before = records.read(Path("evaluation"))
    evaluate(small(external=("shelf",), dry_run=True))
    assert "2 finished runs, to be scored on all external sets" in " ".join(capsys.readouterr().out.split())
    assert scores() == [{}, {}]
    evaluate(small(external=("shelf",)))
    assert scores() == [{"shelf": 5}] * 2
    assert "2 of 2 runs take every test image for the same class as before" in capsys.readouterr().out
    after = records.read(Path("evaluation"))
    assert [r["predictions"] for r in after] == [r["predictions"] for r in before]
    with refused("--external", "2 finished runs are trained again", "shelf too"):
        evaluate(small(external=("street",), dry_run=True))
    evaluate(small(external=("./shelf", "street")))
    assert scores() == [{"shelf": 5, "street": 5}] * 2
    lines = Path("evaluation", "records.jsonl").read_text()
    evaluate(small())
    evaluate(small(external=("street",)))
    assert Path("evaluation", "records.jsonl").read_text() == lines


@pytest.mark.heavy
def test_a_stop_between_two_runs_leaves_the_rest_to_be_trained_again(small):
    evaluate(small())
    evaluate(small(external=("shelf",)))
    path = Path("evaluation", "records.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    path.write_text("".join(lines[:3]))
    assert scores() == [{"shelf": 5}, {}]
    evaluate(small(external=("shelf",)))
    assert scores() == [{"shelf": 5}] * 2 and len(path.read_text().splitlines()) == 4


def test_the_size_does_not_depend_on_which_arms_are_asked_for(small, capsys):
    """The photos have 40 pixels and the synthetic images 16, which are too few for a network."""

    def plan(**options) -> str:
        evaluate(small(dry_run=True, **options))
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("size"))

    assert plan(ratios=("1",)) == plan(ratios=("all",)) == plan(ratios=("0",))
    assert plan(ratios=("1",)) == "size      32 px, by way of 16 px, after the images in shards"
    assert plan(ratios=("1",), size=64) == "size      64 px, by way of 16 px, after --size"
    assert "size      40 px, after the photos; no set of their classes lies in elsewhere" in plan(
        ratios=("1",), synthetic="elsewhere"
    )


def test_a_given_set_of_another_size_than_the_base_makes_is_refused(small, refused):
    with refused("--generators", "16 px", "the base mini makes 64 px"):
        evaluate(small(generators=("given", "untuned"), dry_run=True))


@pytest.mark.parametrize(
    ("ratio", "real", "options"), [("0.1", 3, {"model": "features:cnn"}), ("0.2", 5, {"mixing": "weight"})]
)
def test_small_classes_stay_in_every_arm(small, ratio, real, options):
    write_images(Path("few", "train"), {"x": 12, "y": 12, "z": 2}, size=16)
    write_images(Path("few", "test"), {"x": 2, "y": 2, "z": 1}, size=16, seed=1)
    write_shards(Path("fewer"), [], ("x", "y", "z"), count=12)
    evaluate(small(data="few", synthetic="fewer", ratios=(ratio,), generators=("given", "none"), **options))
    found = records.read(Path("evaluation"))
    assert [(r["arm"], r["n_real"]) for r in found] == [("ratio", real), ("oversampled", real)]


@pytest.mark.heavy
def test_a_mixture_of_another_total_joins_the_page_from_a_set_of_its_own(small):
    write_shards(Path("many"), [], count=20)
    evaluate(small(ratios=("0",), total=30, synthetic="many", output=Path("value")))
    evaluate(small(ratios=("1", "0"), also=(Path("value"),)))
    page = Page(Path("evaluation", "report.html").read_text(encoding="utf-8"))
    (rows,) = page.named("results")
    assert [row[0] for row in rows[1:]] == [
        "100% real 12 real, 0 synthetic",
        "100% synthetic 0 real, 12 synthetic",
        "100% synthetic, 30 images 0 real, 30 synthetic",
    ]
    assert [row[2] != "\N{EN DASH}" for row in rows[1:]] == [False, True, True]
