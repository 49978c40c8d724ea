"""What lies in an output after a run, whatever happened to it."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from safetensors import safe_open


def unprotect(output: Path) -> None:
    """Let the owner write again."""
    for path in (output, *output.rglob("*")):
        if path.exists():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def left_over(output: Path) -> list[Path]:
    """What no run should leave behind."""
    return [path for path in output.rglob("*") if path.suffix == ".part" or path.name.startswith(".")]


def contents(output: Path) -> dict[Path, bytes]:
    """Every file with its bytes."""
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def require_whole(output: Path) -> None:
    """Every file under its final name can be read to its end; logs that grow may end in half a line."""
    for path in output.rglob("*"):
        if path.is_file() and not any(part.endswith(".part") for part in path.relative_to(output).parts):
            READERS.get(path.suffix, lambda path: None)(path)


def _lines(path: Path) -> None:
    text = path.read_text()
    grows = path.name == "records.jsonl" or path.parent.name == "logs"
    for line in text[: text.rfind("\n") + 1].splitlines() if grows else text.splitlines():
        json.loads(line)


def _tensors(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


def _picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": _lines,
    ".safetensors": _tensors,
    ".png": _picture,
    ".parquet": pq.read_table,
    ".html": _page,
}
