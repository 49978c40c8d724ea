"""What people decided on images: a file that only grows, one action a line, each on disk before the next.

An image is its name in the set and the SHA-256 of its file, so a decision never falls upon another image that
has come under the name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from orchard.errors import UserError
from orchard.files import checked_json, json_lines

FILE = "review.jsonl"
"""Name of the file beside a synthetic set."""
HUMAN = "human"
"""The screen that a person is."""
Verdict = Literal["keep", "reject", ""]
"""Empty: not decided."""
Verb = Literal["keep", "reject", "clear", "note", "undo", "shown"]
"""clear: not decided after all; undo: takes back the reviewer's last action; shown: real photos that could be
seen beside the images."""
MOST_NOTE = 2000
"""Characters of a note."""
Key = tuple[str, str]
"""Name of an image in its set, SHA-256 of its file."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a reviewer did to some images at once: a line of the file."""

    verb: Verb
    images: dict[str, str]
    """Name in the set -> SHA-256 of the file."""
    reviewer: str
    time: str
    """ISO 8601, in UTC."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What holds for an image, and who said it last."""

    verdict: Verdict = ""
    note: str = ""
    reviewer: str = ""
    time: str = ""


def read(path: Path) -> list[Action]:
    """The actions of a file in their order; none where there is no file.

    Raises:
        UserError: a line is damaged, other than a last one that was cut off.
    """
    if not path.is_file():
        return []
    try:
        return [checked_json.build(Action, line) for line in json_lines.each(path)]
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); mend or remove the bad line") from None


def act(path: Path, verb: Verb, images: dict[str, str], reviewer: str, note: str = "") -> Action:
    """Add an action to the file; it is on disk when this returns.

    Raises:
        WriteError: it cannot be written.
    """
    assert verb in get_args(Verb), verb
    action = Action(verb=verb, images=images, reviewer=reviewer, time=_now(), note=note)
    json_lines.append(
        path, {name: value for name, value in asdict(action).items() if value or name != "note"}
    )
    return action


def standing(actions: Iterable[Action]) -> list[Action]:
    """The actions without those that were taken back."""
    left: list[Action] = []
    for action in actions:
        if action.verb != "undo":
            left.append(action)
        elif (place := last_of(left, action.reviewer)) is not None:
            del left[place]
    return left


def last_of(left: Sequence[Action], reviewer: str) -> int | None:
    """The place of what this reviewer would take back."""
    own = (i for i in reversed(range(len(left))) if left[i].reviewer == reviewer and left[i].verb != "shown")
    return next(own, None)


def current(actions: Iterable[Action]) -> dict[Key, Decision]:
    """What holds for each image that somebody decided on or made a note of."""
    found: dict[Key, Decision] = {}
    for action in standing(actions):
        found |= after(action, found)
    return found


def after(action: Action, before: Mapping[Key, Decision]) -> dict[Key, Decision]:
    """What holds for the images of an action that takes nothing back, once it is done."""
    if action.verb == "shown":
        return {}
    said: dict[str, Any] = {"reviewer": action.reviewer, "time": action.time}
    if action.verb == "note":
        said["note"] = action.note
    else:
        said["verdict"] = "" if action.verb == "clear" else action.verb
    return {key: replace(before.get(key, Decision()), **said) for key in action.images.items()}


def shown(actions: Iterable[Action]) -> frozenset[str]:
    """SHA-256 of the real photos that could be seen beside the images."""
    return frozenset(
        digest for action in actions if action.verb == "shown" for digest in action.images.values()
    )
