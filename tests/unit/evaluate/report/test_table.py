"""The table in the terminal, and the numbers as files."""

import csv
import io
import json
import re

import pytest
from rich.console import Console
from runs import run, sweep, wrong_at

from evaluate.analysis.analyse import analyse
from evaluate.analysis.labels import label, points
from evaluate.analysis.student_report import FRUIT
from evaluate.analysis.summary import summarise
from evaluate.report import export, publish

MINUS = "\N{MINUS SIGN}"
WRONG = {1.0: [(), ()], 0.3: [(0, 1, 2)] * 2, 0.0: [range(9)] * 2}


def printed(records, reference=None, width=80):
    console = Console(width=width, file=io.StringIO(), record=True)
    publish.print_table(summarise(records), reference, console)
    return console.export_text()


def test_arms_have_the_names_of_the_report():
    names = [label(row.arm) for row in summarise([run(wrong_at(3), ratio=r) for r in (1.0, 0.5, 0.3, 0.0)])]
    assert names == ["100% real", "50/50", "30/70", "100% synthetic"]


def test_names_tell_shots_controls_and_mixings_apart():
    kinds = [
        {"shots": 4},
        {"shots": 4, "ratio": 0.07},
        {"ratio": 0.5, "arm": "untuned"},
        {"ratio": 0.5, "mixing": "weight 0.8"},
        {"arm": "fold", "fold": 0},
    ]
    names = {label(row.arm) for row in summarise([run(wrong_at(3), **kind) for kind in kinds])}
    assert names == {
        "4-shot",
        "4-shot + tuned",
        "50/50, untuned base",
        "50/50, weight 0.8",
        "100% real, cross-validated",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0"), (-0.04, "0.0"), (1.25, "+1.2"), (-1.2, f"{MINUS}1.2"), (None, "\N{EN DASH}")],
)
def test_differences_carry_a_sign_unless_they_round_to_zero(value, text):
    assert points(value) == text


def test_terminal_table_fits_eighty_columns_and_quotes_the_reference():
    text = printed(sweep(WRONG), FRUIT)
    assert "…" not in text
    assert re.search(rf"30/70\s+0\.900 ± 0\.000\s+{MINUS}10\.0", text)
    assert re.search(r"report model 4\s+0\.7455\s+0\.8243\s+0\.7455\s+0\.7044\s+0\.9161", text)
    assert "report model" not in printed(sweep(WRONG))


def test_terminal_table_prints_design_names_as_they_are():
    assert "Design: [red]x[/nope]" in printed(sweep(WRONG, design="[red]x[/nope]"))


def test_csv_has_one_row_a_run_and_scalar_columns(tmp_path):
    records = sweep(WRONG)
    records[0]["roc_auc"] = None
    export.write_runs(records, tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records)
    assert rows[0]["roc_auc"] == "" == rows[0]["shots"]
    assert [float(row["accuracy"]) for row in rows] == [r["accuracy"] for r in records]
    assert float(rows[3]["macro_f1"]) == records[3]["macro"]["f1"]
    assert {"predictions", "per_class", "confusion", "classes", "macro"}.isdisjoint(rows[0])
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_every_number_of_an_arm_is_in_the_files(tmp_path):
    records = sweep(WRONG)
    analysis = analyse(records)
    export.write(records, analysis, tmp_path)
    with (tmp_path / "arms.csv").open(newline="", encoding="utf-8") as file:
        arms = list(csv.DictReader(file))
    whole = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
    assert [arm["label"] for arm in arms] == ["100% real", "30/70", "100% synthetic"]
    for arm, row, known in zip(arms, whole["rows"], analysis.rows, strict=True):
        assert float(arm["accuracy_mean"]) == row["weighted"]["accuracy"]["mean"]
        assert float(arm["nll_mean"]) == row["nll"]["mean"] == known.nll.mean
        assert [float(arm["accuracy_low"]), float(arm["accuracy_high"])] == row["interval"]
    assert arms[0]["change_points"] == ""
    assert float(arms[2]["change_p_holm"]) == whole["rows"][2]["change"]["p_holm"]
    assert arms[2]["change_within_margin"] == "False"
    assert whole["verdict"] == analysis.verdict
    assert whole["no_exchange"].startswith("needs real images alone in two numbers")
    assert whole["resolutions"][0]["pairs"] == 6
