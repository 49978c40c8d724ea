import csv
import io
import re

import numpy as np
import pytest
from rich.console import Console

from evaluate import table
from evaluate.metrics import score
from evaluate.reference import FRUIT
from evaluate.statistics import summarise

CLASSES = ["apple", "banana"]
MINUS = "\N{MINUS SIGN}"


def record(ratio, wrong, *, seed=0, design="substitute", shots=None, n=30):
    """A run whose first ``wrong`` of ``n`` images are classified wrongly."""
    truth = [CLASSES[i % 2] for i in range(n)]
    p = np.array([[0.9, 0.1] if (i % 2 == 0) == (i >= wrong) else [0.1, 0.9] for i in range(n)])
    predictions = [
        {"file": f"{i}.jpg", "truth": t, "probabilities": dict(zip(CLASSES, map(float, q), strict=True))}
        for i, (t, q) in enumerate(zip(truth, p, strict=True))
    ]
    return {
        "design": design,
        "ratio": ratio,
        "shots": shots,
        "seed": seed,
        "steps": 400,
        "classes": CLASSES,
        "n_real": round(200 * ratio),
        "n_synthetic": round(200 * (1 - ratio)),
        **score(truth, p, CLASSES),
        "predictions": predictions,
    }


def sweep(**more):
    return [record(r, wrong, seed=s, **more) for r, wrong in ((1.0, 0), (0.3, 3), (0.0, 9)) for s in (0, 1)]


def printed(records, reference=None, width=80):
    console = Console(width=width, file=io.StringIO(), record=True)
    table.print_table(summarise(records), reference, console)
    return console.export_text()


def test_verdict_states_the_change_and_what_cannot_be_resolved():
    said = table.verdict(summarise(sweep()))
    assert said == (
        f"Replacing 70% of the real images with synthetic ones changed mean accuracy by {MINUS}10.0 points "
        "(100.0% to 90.0%, 2 runs, McNemar p = 0.25), which this test set cannot tell from no change; "
        "with 30 test images, differences under 20.0 points cannot be resolved."
    )


def test_verdict_names_a_difference_that_is_significant():
    said = table.verdict(summarise([record(1.0, 0), record(0.0, 9)]))
    # Nine images to none: 2 / 2**9.
    assert "Replacing all of the real images" in said
    assert "1 run, McNemar p = 0.004), a significant difference;" in said


def test_verdict_of_the_augment_design_speaks_of_adding():
    said = table.verdict(summarise([record(r, 0, design="augment") for r in (1.0, 0.5)]))
    assert said.startswith("Adding 100 synthetic images to 100 real ones changed mean accuracy by 0.0 points")


def test_verdict_without_real_only_runs_claims_nothing():
    said = table.verdict(summarise([record(0.3, 3)]))
    assert "90.0%" in said
    assert "nothing can be said" in said


def test_limits_name_the_best_score_that_can_be_told_from_a_perfect_one():
    first = table.limits(summarise([record(1.0, 0, n=55)]))[0]
    assert "55 of 55" in first
    assert "at most 49 right" in first
    assert table.limits(summarise([record(1.0, 0, n=4)]))[0].startswith(
        "With 4 test images no difference at all"
    )


def test_arms_have_the_names_of_the_report():
    names = [table.arm_label(ratio) for ratio in (1.0, 0.5, 0.3, 0.0)]
    assert names == ["100% real", "50/50", "30/70", "100% synthetic"]
    assert table.arm_label(0.3, 4) == "30/70, 4-shot"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0"), (-0.04, "0.0"), (1.25, "+1.2"), (-1.2, f"{MINUS}1.2"), (None, "\N{EN DASH}")],
)
def test_differences_carry_a_sign_unless_they_round_to_zero(value, text):
    assert table.points(value) == text


def test_terminal_table_fits_eighty_columns_and_quotes_the_reference():
    text = printed(sweep(), FRUIT)
    assert "…" not in text
    assert re.search(rf"30/70\s+0\.900 ± 0\.000\s+{MINUS}10\.0", text)
    assert re.search(r"report model 4\s+0\.7455\s+0\.8243\s+0\.7455\s+0\.7044\s+0\.9161", text)
    assert "report model" not in printed(sweep())


def test_terminal_table_prints_design_names_as_they_are():
    assert "Design: [red]x[/nope]" in printed(sweep(design="[red]x[/nope]"))


def test_csv_has_one_row_a_run_and_scalar_columns(tmp_path):
    records = sweep()
    records[0]["roc_auc"] = None
    table.write_csv(records, tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records)
    assert rows[0]["roc_auc"] == "" == rows[0]["shots"]
    assert [float(row["accuracy"]) for row in rows] == [r["accuracy"] for r in records]
    assert float(rows[3]["macro_f1"]) == records[3]["macro"]["f1"]
    assert {"predictions", "per_class", "confusion", "classes", "macro"}.isdisjoint(rows[0])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
