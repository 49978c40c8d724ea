"""A recipe's file: flat YAML, which a stranger may have written. Text options are what was written."""

import datetime
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import yaml

from orchard.errors import UserError, listed
from orchard.files import checked_json, size_limits

Scalar = str | Real | datetime.date
"""What one value can be."""


COMMANDS = ("finetune", "classify", "generate", "review", "evaluate")
"""What a section of a recipe can be for."""
NULL = "tag:yaml.org,2002:null"
NUMBERS = (int, float, bool, type(None))
"""Types that YAML has too; all others are text to it."""


class _Loader(yaml.SafeLoader):
    """Values as they were written, and None for those left empty.

    No anchors, whose nests of references can grow without end, and no key twice.
    """

    # YAML would take 01 for 1, no for false, 2024-01-01 for a date; whether it is one, the option says.
    yaml_implicit_resolvers = {"": [(NULL, re.compile("^$"))]}  # noqa: RUF012 - the base class's own

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ValueError(f"line {line} refers to another value; write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{min(twice)} is listed twice")
        return super().construct_mapping(node, deep)


def read(path: Path, kinds: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The options of a recipe by name; ``kinds`` are the types of those that there are.

    A recipe of several commands has a section for each of them, of which ``command`` reads its own.

    Raises:
        UserError: there is none, it is no YAML, or no list of options.
    """
    if not path.is_file():
        raise UserError(f"--config {path}: no such file; recipes/ has examples")
    try:
        text = checked_json.read(path, size_limits.RECIPE)
        recipe = yaml.load(text, _Loader) or {}
        if isinstance(recipe, dict):
            recipe = _own(recipe, command, path)
            names = {key: str(key).replace("-", "_") for key in recipe}
            recipe = {key: _meant(value, kinds.get(names[key])) for key, value in recipe.items()}
        _require_plain(recipe)
    except (yaml.YAMLError, ValueError, OverflowError, LookupError, OSError) as error:
        raise UserError(f"--config {path}: not YAML ({error})") from None
    except RecursionError:
        raise UserError(f"--config {path}: not YAML (nested too deeply)") from None
    if not isinstance(recipe, dict) or not all(isinstance(key, str) for key in recipe):
        raise UserError(f"--config {path}: a recipe is a list of `option: value` lines")
    return recipe


def _own(recipe: dict[Any, Any], command: str, path: Path) -> dict[Any, Any]:
    """The section of ``command``; the recipe itself where it has no sections."""
    sections = [name for name in recipe if name in COMMANDS]
    if not sections:
        return recipe
    if other := [str(name) for name in recipe if name not in COMMANDS]:
        raise UserError(f"--config {path}: {other[0]} stands beside {sections[0]}; put it into a section")
    if command not in recipe:
        raise UserError(f"--config {path}: has no section {command}, only {listed(sections)}")
    found = recipe[command] or {}
    if not isinstance(found, dict):
        raise UserError(f"--config {path}: {command}: a section is a list of `option: value` lines")
    return found


def _meant(value: Any, kind: Any) -> Any:
    """What is written as an option of this type takes it: numbers and truth as YAML does, text as it is."""
    if isinstance(value, list):
        return [_meant(item, kind) for item in value]
    if not isinstance(value, str):
        return value
    yaml_11 = yaml.SafeLoader("")
    node = yaml.ScalarNode(yaml_11.resolve(yaml.ScalarNode, value, (True, False)), value)
    unset = node.tag == NULL and type(None) in get_args(kind)
    return yaml_11.construct_object(node) if unset or _is_number(kind) else value


def _is_number(kind: Any) -> bool:
    """Whether values of this type are numbers or truth, one or several, and never text."""
    parts = [part for part in get_args(kind) if part is not ...]
    return kind in NUMBERS or (bool(parts) and all(map(_is_number, parts)))


def _require_plain(value: Any) -> None:
    """Raise `ValueError` for a number or a text, at any depth, that no option can have."""
    if isinstance(value, str):
        checked_json.require_characters(value)
    elif isinstance(value, int) and abs(value) > checked_json.LARGEST_INTEGER:
        raise ValueError(f"{checked_json.shown(value)} is too large")
    elif isinstance(value, dict | list | tuple | set):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _require_plain(item)
