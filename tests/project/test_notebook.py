"""The notebook in examples/ runs from its first cell to its last, and is committed without outputs."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

PATH = ROOT / "examples" / "quickstart.ipynb"


def test_it_is_committed_without_outputs():
    cells = nbformat.read(PATH, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_the_whole_flow_runs_and_shows_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    assert (tmp_path / "evaluation" / "report.html").is_file()
    text = "".join(output.get("text", "") for output in shown)
    assert "sampling:" in text and "36/36" in text
