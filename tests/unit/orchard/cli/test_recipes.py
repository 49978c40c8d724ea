"""Every recipe parses, and says at its head how it is used."""

import pytest
import yaml
from conftest import ROOT

from classify.config import Classify
from evaluate.config import Evaluate
from finetune.config import TrainLora
from generate.config import Generate
from orchard.cli import cli

COMMANDS = {
    "finetune/train_lora.py": TrainLora,
    "-m generate": Generate,
    "-m classify": Classify,
    "-m evaluate": Evaluate,
}
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_parses_with_the_command_in_its_head(path):
    head = path.read_text().partition("\n\n")[0]
    assert f"recipes/{path.name}" in head
    kinds = [kind for words, kind in COMMANDS.items() if words in head]
    assert len(kinds) == 1
    config = cli.parse(kinds[0], ["--config", str(path)], "test")
    for key, value in yaml.safe_load(path.read_text()).items():
        assert getattr(config, key) == _as_parsed(value)


def _as_parsed(value):
    """Lists become tuples, and sections tuples of ``name=value``."""
    if isinstance(value, dict):
        return tuple(f"{name}={one}" for name, values in value.items() for one in values)
    return tuple(value) if isinstance(value, list) else value
