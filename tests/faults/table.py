"""What holds for each command under each fault: the tests beside run it, `page.py` prints it."""

from typing import NamedTuple


class Cell(NamedTuple):
    """What holds at ``moments`` moments, so many of which ``slow`` ones only in `make slow`."""

    sentence: str
    moments: int = 20
    slow: int = 0


COMMANDS = ("finetune", "generate", "classify", "evaluate")
REFUSED = "the second is refused and changes nothing"
WHOLE = "each file is whole or not there"

TABLE: dict[str, tuple[Cell, Cell, Cell, Cell]] = {
    "kill -9": (
        Cell("finished adapters and the last checkpoint stay; `--resume latest` ends in the same bits"),
        Cell("whole shards stay; the same command samples what is missing: equal bytes"),
        Cell(f"{WHOLE}; the same command ends in equal bytes"),
        Cell("finished runs stay; the same command trains the others: equal records"),
    ),
    "SIGTERM": (
        Cell("code 143; in training a checkpoint is saved first; `--resume latest`: the same bits"),
        Cell("code 143; images stay; the same command goes on: equal bytes"),
        Cell(f"code 143; {WHOLE}; then equal bytes"),
        Cell("code 143; finished runs stay; then equal records"),
    ),
    "full disk": (
        Cell("one line; what was finished stays; then the same bits", slow=16),
        Cell("one line; whole shards stay; then equal bytes"),
        Cell(f"one line; {WHOLE}; then equal bytes"),
        Cell("one line; finished runs stay; then equal records", slow=16),
    ),
    "read-only output": (
        Cell("one line; what was finished stays; then the same bits", slow=16),
        Cell("one line; whole shards stay; then equal bytes"),
        Cell("one line; then equal bytes"),
        Cell("one line; finished runs stay; then equal records", slow=16),
    ),
    "clock that jumps": (
        Cell("the same bits", moments=1),
        Cell("equal bytes", moments=1),
        Cell("equal bytes", moments=1),
        Cell("equal records", moments=1),
    ),
    "two writers": (
        Cell(f"{REFUSED}; the same bits", slow=16),
        Cell(f"{REFUSED}; equal bytes"),
        Cell(f"{REFUSED}; equal bytes"),
        Cell(f"{REFUSED}; equal records", slow=16),
    ),
}
