"""`make demo`'s script, small."""

import os
import subprocess
import sys

import pipelines
import pytest
from conftest import ROOT

import end_to_end


def test_the_demo_deletes_nothing_that_it_did_not_make(tmp_path, refused):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "mine").touch()
    with refused(f"--output {tmp_path}: has a folder shards that no demo made"):
        end_to_end.empty(tmp_path)
    assert (tmp_path / "shards" / "mine").exists()
    end_to_end.empty(tmp_path / "demo")
    (tmp_path / "demo" / "shards").mkdir()
    end_to_end.empty(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [end_to_end.MARK]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fruit", "have_photos"),
    [
        ("stand-in", True),
        pytest.param("real", True, marks=pytest.mark.needs("fruit")),
        ("stand-in", False),
    ],
    ids=["kaggle's layout", "kaggle", "rendered"],
    indirect=["fruit"],
)
def test_the_demo_runs_through_and_says_which_set_it_took(tmp_path, fruit, have_photos):
    base = pipelines.tiny(tmp_path / "base")
    small = ["--train_steps", "2", "--count", "75", "--classify_steps", "3", "--seeds", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "ORCHARD_FRUIT"}
    if have_photos:
        environment["ORCHARD_FRUIT"] = str(fruit)
    else:
        # Nothing answers there: as on a machine without a network.
        environment |= dict.fromkeys(("https_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "scripts/end_to_end.py", "--base", base, "--output", tmp_path / "out", *small],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"using --data {'fruit' if have_photos else 'demo'}:" in done.stdout
    page = tmp_path / "out" / "evaluation" / "report.html"
    assert str(page) in done.stdout
    assert ("say nothing about photos" in page.read_text()) is not have_photos
    assert ("say nothing about photos" in done.stdout) is not have_photos
