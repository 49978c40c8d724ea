"""`docs/reliability.md` as the markers of the fault tests say it; run as a script, this writes it anew."""

import importlib
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
COMMANDS = ("finetune", "generate", "classify", "evaluate")
TITLE = """# What a run survives

Each cell is a test in `tests/faults/`, and its sentence stands beside the test; the number says at how many
moments the fault happened. `python tests/faults/page.py` writes this page.
"""
NOTES = """
The moments are drawn with a seed from all those at which the command opens, makes, renames or deletes
something in its output. A killed run goes on in what the one before it left, until it is killed again; at
kill -9 what was being written is cut off anywhere. After every fault each file under a final name can be read
to its end, and nothing that was finished is gone. The run after the last fault has to end as an undisturbed
one does, and to leave no `.part` file. After a full or read-only disk and a refused second writer the message
is one line, with exit code 2.

- Full disk: from the moment on no file grows beyond a few bytes (`RLIMIT_FSIZE`). Read-only: from the moment
  on nothing in the output may be changed. Clock: `time.time` jumps by up to ten years at every look, and the
  files that a killed run left are dated at random.
- Equal is to the bit, on one machine and its CPU. `images_per_second` in logs, and seconds in records, are
  not compared, nor is the text of the report page.
- finetune keeps its cache in the same output here, so that it meets the same faults.
- The commands that evaluate runs for arms of their own stop when it ends, however it ends, and save what
  they have first. So do processes whose `accelerate launch` or torchrun dies (`tests/test_stopping.py`).
  After kill -9 only Linux tells them.
- finetune keeps each photo and prompt that it has encoded, and each batch of the prior that it has sampled;
  a preview or sheet under way is left out. generate keeps the images of a shard that is not full, after an
  error too.
- Of several processes SIGTERM ends evaluate at once, as kill -9 does; so it does with finetune and generate
  where they neither train nor sample.
- generate, classify and evaluate refuse by name a shard that was altered later or replaced by another set's;
  deleted, it is sampled anew (`tests/test_altered_shards.py`). A stopped set has no manifest yet: there only
  flipped bytes that are read, and rows in the wrong shard, are found.
- Not tested: loss of power; file systems without `flock`, where the commands refuse to write.
"""


def marks(command: str) -> dict[str, tuple[int, str]]:
    """Fault -> moments and sentence of the command's tests, in their order."""
    module = importlib.import_module(f"test_{command}_faults")
    found = [mark for value in vars(module).values() for mark in getattr(value, "pytestmark", ())]
    return {mark.args[0]: mark.args[1:] for mark in found if mark.name == "fault"}


def render() -> str:
    """The page."""
    columns = {command: marks(command) for command in COMMANDS}
    faults = list(columns[COMMANDS[0]])
    assert all(list(column) == faults for column in columns.values()), columns
    lines = [f"| fault | {' | '.join(COMMANDS)} |", "|---" * (1 + len(COMMANDS)) + "|"]
    for fault in faults:
        cells = (
            f"{sentence} ({moments})" for moments, sentence in (column[fault] for column in columns.values())
        )
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join([TITLE, *lines, NOTES])


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    PAGE.write_text(render(), encoding="utf-8")
