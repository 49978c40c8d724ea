"""A recipe's file: flat YAML, which a stranger may have written."""

import datetime
from pathlib import Path
from typing import Any

import yaml

from orchard import limits, typed
from orchard.errors import UserError

Scalar = str | int | float | datetime.date
"""What one value can be."""


class _Loader(yaml.SafeLoader):
    """Plain values alone: no anchors, whose nests of references can grow without end, and no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ValueError(f"line {line} refers to another value; write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{min(twice)} stands there twice")
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The options of a recipe by name.

    Raises:
        UserError: there is none, it is no YAML, or no list of options.
    """
    if not path.is_file():
        raise UserError(f"--config {path}: no such file; recipes/ has examples")
    try:
        text = typed.read(path, limits.RECIPE)
        recipe = yaml.load(text, _Loader) or {}
        _require_plain(recipe)
    except (yaml.YAMLError, ValueError, OverflowError, LookupError, OSError) as error:
        raise UserError(f"--config {path}: not YAML ({error})") from None
    except RecursionError:
        raise UserError(f"--config {path}: not YAML (nested too deeply)") from None
    if not isinstance(recipe, dict) or not all(isinstance(key, str) for key in recipe):
        raise UserError(f"--config {path}: a recipe is a list of `option: value` lines")
    return recipe


def _require_plain(value: Any) -> None:
    """Raise `ValueError` for a number or a text, at any depth, that no option can have."""
    if isinstance(value, str):
        typed.require_characters(value)
    elif isinstance(value, int) and abs(value) > typed.LARGEST_INTEGER:
        raise ValueError(f"{typed.shown(value)} is too large")
    elif isinstance(value, dict | list | tuple | set):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _require_plain(item)
