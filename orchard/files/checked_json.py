"""JSON and text of files that anybody may have written: of bounded size, each value of its own type.

Everything here raises `ValueError` (or `OSError`, where a file is read) with a reason; the caller adds which
file it is and what mends it.
"""

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from orchard.files import size_limits

PIECE = 2**18
"""Bytes that are read at once."""
LARGEST_INTEGER = 2**63
"""Integers of ours fit into 64 bits."""
SHOWN = 60
"""Characters of a wrong value that a message shows."""
PLAIN = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false"}

T = TypeVar("T")


def read(path: Path, most: int = size_limits.TEXT) -> str:
    """The UTF-8 text of a file of at most ``most`` bytes."""
    data = read_bytes(path, most)
    return data.decode("utf-8-sig")


def read_bytes(path: Path, most: int = size_limits.TEXT) -> bytes:
    """The bytes of a file of at most ``most`` bytes."""
    data = bytearray()
    with path.open("rb") as file:
        # In pieces: a reader that is asked for all bytes that there may be makes room for them first.
        while piece := file.read(PIECE):
            data += piece
            if len(data) > most:
                raise ValueError(f"larger than {most} bytes")
    return bytes(data)


def parse(text: str | bytes, *, finite: bool = True) -> Any:
    """JSON without NUL and halves of characters, nested no deeper than the parser goes.

    NaN and infinity are no JSON; where not ``finite``, they are taken nevertheless.
    """
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    try:
        value = json.loads(text, parse_constant=_no_constant if finite else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u0000" in text:
        raise ValueError("it holds a NUL character")
    if "\\ud" in text.lower():
        require_characters(json.dumps(value, ensure_ascii=False))
    return value


def require_characters(text: str) -> None:
    """Raise unless the text can stand in a file and in a file's name: whole characters, no NUL."""
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character (a lone surrogate)") from None


def require_distinct(names: Sequence[str]) -> None:
    """Raise unless there are names, none of them empty or twice: what a class list has to be."""
    if not names or len(set(names)) != len(names) or "" in names:
        raise ValueError(f"{shown(list(names))} is no list of class names, each once")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def versioned(kind: type[T], text: str | bytes, newest: int) -> T:
    """The dataclass that JSON holds, written under a ``schema`` that is not above ``newest``."""
    value = parse(text)
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not an object")
    schema = conform(int, value.get("schema"), "schema")
    if schema > newest:
        raise ValueError("written by a newer version; update this toolkit")
    return build(kind, value)


def build(kind: type[T], value: Any) -> T:
    """A dataclass from a JSON object that has its fields, those with defaults perhaps not, and no others."""
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    none = dataclasses.MISSING
    required = [f.name for f in fields if f.default is none and f.default_factory is none]
    found = table(dict.fromkeys(required, Any), value)
    if unknown := sorted(found.keys() - hints.keys()):
        raise ValueError(f"{shown(unknown[0])} is no field of it")
    return kind(**{name: conform(hints[name], item, name) for name, item in found.items()})


def typed(kind: type[T], value: Any, where: str = "") -> T:
    """A JSON object that has the required keys of a `TypedDict`; what else it has is not looked at."""
    kinds: Mapping[str, Any] = _required(kind)  # type: ignore[arg-type]
    return cast(T, table(kinds, value, where))


@functools.cache
def _required(kind: Any) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__required_keys__}


def table(kinds: Mapping[str, Any], value: Any, where: str = "") -> dict[str, Any]:
    """A JSON object that has these fields of these types; it may have more. ``where`` begins their names."""
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not an object")
    if missing := [name for name in kinds if name not in value]:
        raise ValueError(f"no {', '.join(missing)} in it")
    return value | {name: conform(kind, value[name], f"{where}{name}") for name, kind in kinds.items()}


def conform(kind: Any, value: Any, name: str) -> Any:
    """``value`` as the type ``kind`` says, lists as tuples where it says so; raise when it is none."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_typeddict(kind):
        return typed(kind, value, f"{name}.")
    if origin is Literal:
        return (
            value if value in arguments else _refuse(name, value, f"one of {', '.join(map(str, arguments))}")
        )
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, name)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list):
            _refuse(name, value, "a list")
        items = [conform(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            _refuse(name, value, "an object")
        return {key: conform(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    return _plain(kind, value, name)


def _one_of(kinds: Sequence[Any], value: Any, name: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    possible = [kind for kind in kinds if kind is not type(None)]
    for kind in possible[:-1]:
        try:
            return conform(kind, value, name)
        except ValueError:
            continue
    return conform(possible[-1], value, name)


def _plain(kind: type, value: Any, name: str) -> Any:
    whole = type(value) is int and -LARGEST_INTEGER <= value < 2 * LARGEST_INTEGER
    real = whole or (type(value) is float and math.isfinite(value))
    fits = {float: real, int: whole}.get(kind, isinstance(value, kind))
    return value if fits else _refuse(name, value, PLAIN[kind])


def _refuse(name: str, value: Any, wanted: str) -> NoReturn:
    raise ValueError(f"{name[:SHOWN]} is {shown(value)}, not {wanted}")


def shown(value: Any) -> str:
    """The value in a few words, for a message."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        # Such a number may have no text: Python stops at some thousands of digits.
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
