"""The real images that a set has seen: lists of SHA-256 that lie in the folder once, however many shards.

`ledgers/SHA256.txt` has an image's SHA-256 a line, ascending, and the list's own as its name. It is written
before the shards whose footers name it.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from orchard.errors import UserError
from orchard.files import checked_json, storage
from orchard.files.atomic import file_hash, whole_file

if TYPE_CHECKING:
    from orchard.shards.header import ShardHeader

FOLDER = "ledgers"
NAME = re.compile(rf"{FOLDER}/(?P<sha256>[0-9a-f]{{64}})\.txt")
VERSIONS = 4096
"""Files whose hashes stay in memory."""


class Ledger(TypedDict):
    """A list that lies in a file of its own."""

    sha256: str
    count: int
    """Images."""


Seen = Ledger | list[str]
"""Real images by their SHA-256: where they are listed, or the list, as in a plan and in shards of before."""


def name_of(ledger: Ledger) -> str:
    """The file of a list, in the set's folder."""
    return f"{FOLDER}/{ledger['sha256']}.txt"


def require_named(seen: Iterable[Seen]) -> None:
    """Raise `ValueError` where a list is not named by a hash: headers may come from anywhere."""
    for one in seen:
        if not isinstance(one, list) and not NAME.fullmatch(name_of(one)):
            raise ValueError(f"{checked_json.shown(one['sha256'])} is no SHA-256")


def put(folder: Path, seen: Seen) -> Seen:
    """Where the images are listed in the folder, after listing them there; an empty list stays one.

    Raises:
        UserError: they are said to be listed there, and are not.
        WriteError: the list cannot be written.
    """
    if not seen:
        return []
    if isinstance(seen, list):
        ledger, text = _listed(seen)
        path = folder / name_of(ledger)
        if _hash(path) != ledger["sha256"]:
            # By several processes perhaps.
            with whole_file(path, shared=True) as aside:
                aside.write_bytes(text)
            _of_version.cache_clear()
    else:
        ledger = seen
    require(folder, [ledger])
    return ledger


def _listed(seen: Iterable[str]) -> tuple[Ledger, bytes]:
    text = "".join(f"{one}\n" for one in sorted(set(seen))).encode()
    return {"sha256": hashlib.sha256(text).hexdigest(), "count": text.count(b"\n")}, text


def require(folder: Path, named: Iterable[Ledger]) -> None:
    """Raise `UserError` unless each list is there as it was written."""
    for ledger in named:
        path = folder / name_of(ledger)
        if (found := _hash(path)) != ledger["sha256"]:
            raise _lost(path, "altered" if found else "missing")


def hashes(folder: Path, seen: Seen) -> list[str]:
    """The SHA-256 of the images, ascending where they are listed in a file.

    Raises:
        UserError: the list is not there as it was written.
    """
    if isinstance(seen, list):
        return seen
    require(folder, [seen])
    return checked_json.read(folder / name_of(seen)).split("\n")[:-1]


def named(headers: Iterable["ShardHeader"]) -> list[Ledger]:
    """The lists that the headers name, each once, by name."""
    found = {one["sha256"]: one for header in headers for one in of(header) if not isinstance(one, list)}
    return [found[name] for name in sorted(found)]


def of(header: "ShardHeader") -> Iterator[Seen]:
    """What the generator has seen, as far as it is known, and each screen."""
    if header.trained_on is not None:
        yield header.trained_on
    yield from header.screened_with.values()


def _hash(path: Path) -> str:
    """SHA-256 of the file; empty where there is none."""
    try:
        there = path.stat()
        # Behind a URL it is hashed once, not at every shard that is written.
        version = (there.st_ino, there.st_mtime_ns) if storage.is_local(path) else (0, 0)
        return _of_version(path, there.st_size, *version)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _lost(path, f"cannot be read ({error.strerror or error})") from None


@functools.lru_cache(maxsize=VERSIONS)
def _of_version(path: Path, size: int, inode: int, time: int) -> str:
    return file_hash(path)


def _lost(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: {reason}; it lists real images that shards beside it have seen, and these are not read "
        "without it; put it back, or repeat the generate command that made them"
    )
