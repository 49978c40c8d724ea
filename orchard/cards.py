"""Markdown of the Hub: YAML head and tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LICENCES = {
    "mini": "apache-2.0",
    "sd15": "creativeml-openrail-m",
    "sd21": "openrail++",
    "sdxl": "openrail++",
}
"""Licences of the named bases, as their cards give them; they bind adapters and images too."""
OTHER = "other"
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_ESCAPED = str.maketrans({character: f"&#{ord(character)};" for character in "&<>`[]|\\"})


def licence(bases: Iterable[str]) -> str:
    """The licence that bases share, as the Hub calls it; ``other`` where they differ or are not known."""
    found = {LICENCES.get(base, OTHER) for base in bases}
    return found.pop() if len(found) == 1 else OTHER


def is_hub_id(base: str) -> bool:
    """Whether a card may link to ``base``: the Hub refuses one that names a folder there."""
    return bool(_HUB_ID.fullmatch(base)) and not Path(base).exists()


def public(name: str) -> str:
    """A name that others may read: of a folder or file on this machine its last part alone."""
    return name if is_hub_id(name) else Path(name).expanduser().resolve().name


def head(fields: Mapping[str, Any]) -> str:
    """The YAML block a card starts with."""
    return f"---\n{yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)}---\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def plain(value: Any) -> str:
    """A stranger's text in a card: one line, in which no HTML, link, code or cell can begin."""
    return " ".join(str(value).split()).translate(_ESCAPED)


def code(value: Any) -> str:
    """The same between backticks, more of them than it has itself in a row."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _cell(value: Any) -> str:
    text = " ".join(str(value).split())
    return text.replace("|", "\\|").replace("<", "&lt;")
