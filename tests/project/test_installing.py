"""Only the editable install is offered: a wheel would overwrite the Hugging Face package ``evaluate``."""

import os
import subprocess
import sys
import zipfile

from conftest import ROOT

STAGES = ("evaluate/", "generate/", "review/", "classify/", "finetune/", "orchard/")


def build(hook: str, folder) -> subprocess.CompletedProcess[str]:
    """Call a hook of the build backend as pip does, from the root of the checkout."""
    code = f"import sys, editable_only; editable_only.{hook}(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts" / "build")}
    words = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_wheel_is_refused_in_one_line_that_says_why(tmp_path):
    for hook in ("build_wheel", "build_sdist"):
        done = build(hook, tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "pip install -e ." in done.stderr and "Hugging Face" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_editable_install_holds_no_file_of_a_package(tmp_path):
    done = build("build_editable", tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("METADATA") for name in names)
    assert not [name for name in names if name.startswith(STAGES)]
