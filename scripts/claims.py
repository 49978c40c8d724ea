"""A folder in which a script goes on where it stopped belongs to one set of options."""

from collections.abc import Mapping
from pathlib import Path

from orchard import run, typed
from orchard.errors import UserError

OPTIONS = "options.json"


def claim(folder: Path, options: Mapping[str, object], option: str = "--output") -> None:
    """Note the options of the run in ``folder``, given as ``option``: what lies there is taken as it is.

    Raises:
        UserError: a run with other options lies there, or nothing can be written.
    """
    path, asked = folder / OPTIONS, {name: str(value) for name, value in options.items()}
    run.writable(folder, option)
    if not path.exists():
        run.write_json(path, asked)
        return
    changes = run.differences(noted(path), asked)
    if changes:
        raise UserError(f"{option} {folder}: holds another run: {changes}; choose another {option}")


def noted(path: Path) -> dict[str, str]:
    """The options of the run that lies there."""
    try:
        return typed.conform(dict[str, str], typed.parse(typed.read(path)), OPTIONS)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another folder") from None
