"""What the documentation names exists: options of the commands, files of the repository."""

import re
from functools import cache

import pytest
from conftest import ROOT
from shell import FORKED, command

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    # Not docs/log: it keeps what was true on the day.
    *sorted((ROOT / "docs").glob("*.md")),
]
CODE = [
    path
    for folder in ("orchard", "finetune", "generate", "review", "classify", "evaluate", "scripts", "recipes")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".yaml", ".j2"}
]
OTHERS = {
    *("config_file", "dynamo_backend", "machine_rank", "main_process_ip", "main_process_port"),
    *("num_processes", "nproc_per_node", "requeue", "signal", "jsonld"),
}
"""Options of accelerate, torchrun, SLURM and mlcroissant."""
FILE = re.compile(
    r"(?<![\w/.-])(?:docs|recipes|scripts|finetune|generate|review|classify|evaluate|orchard)"
    r"/[a-z\d_/]+\.(?:md|py|yaml|webp|png)\b"
)


@cache
def options() -> set[str]:
    """The options of all commands, without dashes."""
    helps = [command(ROOT, *words, "--help") for words in FORKED]
    return set(re.findall(r"--(\w+)", "".join(helps)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_option_that_a_page_names_is_one(page):
    named = set(re.findall(r"(?<![\w-])--(\w+)", page.read_text(encoding="utf-8")))
    assert named <= options() | OTHERS


def test_every_page_and_module_that_is_named_is_there():
    named = {name: path for path in PAGES + CODE for name in FILE.findall(path.read_text(encoding="utf-8"))}
    assert {name: path for name, path in named.items() if not (ROOT / name).exists()} == {}


WRITTEN = {".cfg", ".ipynb", ".j2", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
FOLDERS = (
    *("accelerate_configs", "classify", "docs", "evaluate", "examples", "finetune", "generate"),
    *("orchard", "recipes", "review", "scripts", "tests"),
)


def test_no_file_holds_both_sides_of_a_merge():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in WRITTEN]
    marked = re.compile(rb"^(?:<{7} |>{7} |={7}$)", re.MULTILINE)
    assert [path for path in [*files, *ROOT.glob("*.md")] if marked.search(path.read_bytes())] == []
