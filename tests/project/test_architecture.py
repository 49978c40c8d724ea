"""Rules that hold over the whole tree."""

import ast
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = ("orchard", "finetune", "generate", "review", "classify", "evaluate")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_public_things_documented(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 400, "split it"
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} is long"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_no_module_of_the_trainer_shadows_another():
    """A path launch puts ``finetune/`` first on the search path."""
    names = {path.stem for path in (ROOT / "finetune").glob("*.py")} - {"__init__"}
    assert not names & sys.stdlib_module_names
    site = Path(ast.__file__).parent / "site-packages"
    installed = {path.stem for path in Path(sys.prefix).glob("lib/python*/site-packages/*")} | {site.stem}
    assert not names & installed


def test_stages_import_what_they_may():
    allowed = {
        "orchard": {"orchard"},
        "finetune": {"finetune", "orchard"},
        "generate": {"generate", "orchard"},
        "review": {"review", "orchard"},
        "classify": {"classify", "orchard"},
        "evaluate": {"evaluate", "classify", "orchard"},
    }
    for path in FILES:
        package = path.relative_to(ROOT).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = {name.partition(".")[0] for name in names} & set(PACKAGES)
            assert found <= allowed[package], f"{path} imports {found}"


def test_nothing_is_unpickled_and_no_remote_code_is_trusted():
    for path in FILES:
        text = path.read_text()
        for word in ("pickle", "torch.load(", "trust_remote_code", "weights_only=False"):
            assert word not in text, f"{word} in {path}"
