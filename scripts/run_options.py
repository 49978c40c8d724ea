"""A folder in which a script goes on where it stopped belongs to one set of options."""

from collections.abc import Mapping
from pathlib import Path

from orchard import errors
from orchard.errors import UserError
from orchard.files import atomic, checked_json

OPTIONS = "options.json"


def require_same(folder: Path, options: Mapping[str, object], option: str = "--output") -> None:
    """Note the options of the run in ``folder``, given as ``option``: what lies there is taken as it is.

    Raises:
        UserError: a run with other options lies there, or nothing can be written.
    """
    path, asked = folder / OPTIONS, {name: str(value) for name, value in options.items()}
    atomic.writable(folder, option)
    if not path.exists():
        atomic.write_json(path, asked)
        return
    changes = errors.differences(noted(path), asked)
    if changes:
        raise UserError(f"{option} {folder}: holds another run: {changes}; choose another {option}")


def noted(path: Path) -> dict[str, str]:
    """The options of the run that lies there."""
    try:
        return checked_json.conform(dict[str, str], checked_json.parse(checked_json.read(path)), OPTIONS)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); choose another folder") from None
