"""The one exception that users see, and what its message may say."""

from collections.abc import Mapping, Sequence
from typing import Any


class UserError(Exception):
    """Something a user can mend. The message is one line that names the value and the fix."""

    code = 2
    """Exit code of a command that it ends."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        # Names out of files may hold what a terminal obeys, and halves of characters.
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class WriteError(UserError):
    """A file cannot be written: the disk is full, or nothing may be written there."""


def one_line(error: Exception) -> str:
    """The first line of what an error of some library says, cut where it is long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], *, word: str = "requested") -> str:
    """``steps 400 (requested: 300), …``: the keys whose values are not the same; empty when all are."""
    return ", ".join(
        f"{key} {there.get(key)} ({word}: {asked.get(key)})"
        for key in sorted(there.keys() | asked.keys())
        if there.get(key) != asked.get(key)
    )


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and an ellipsis for the rest."""
    return ", ".join([*names[:most], "…"] if len(names) > most else names)
