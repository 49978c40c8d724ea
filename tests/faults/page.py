"""`docs/reliability.md` as `table.py` says it; run as a script, this writes it anew."""

from pathlib import Path

from table import COMMANDS, TABLE

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
TITLE = """# What a run survives

Each cell is a test in `tests/faults/`; the number says at how many moments the fault happened.
`python tests/faults/page.py` writes this page from the tests' own table.
"""
NOTES = """
The moments are drawn with a seed from all those at which the command opens, creates, renames or deletes
something in its output. A killed run continues from what the one before it left, until it is killed again;
at kill -9, what was being written is cut off anywhere. After every fault, each file under a final name can
be read to its end, and nothing that was finished is lost. The run after the last fault must end as an
undisturbed one does, and leave no `.part` file. After a full or read-only disk and a refused second writer,
the message is one line and the exit code 2.

- Full disk: from that moment on no file grows beyond a few bytes (`RLIMIT_FSIZE`). Read-only: from that
  moment on nothing in the output may be changed. Clock: `time.time` jumps by up to ten years at every call,
  and the files that a killed run left have random dates.
- Equal means bit-identical, on one machine and its CPU. `images_per_second` in logs, seconds in records and
  the text of the report page are not compared.
- finetune keeps its cache in the same output here, so it meets the same faults.
- The commands that evaluate runs for arms of their own stop when it ends, however it ends, and first save
  what they have. So do processes whose `accelerate launch` or torchrun dies
  (`tests/commands/test_stopping.py`). After kill -9 this works on Linux only.
- finetune keeps each photo and prompt that it has encoded, and each batch of the prior that it has sampled;
  an unfinished preview or sheet is left out. generate keeps the images of a shard that is not full, after
  an error too.
- With several processes on several machines, one that is killed or cut off is named by the others in one
  line, after 2 and 40 seconds; all end with code 75 and go on together (`tests/faults/test_nodes.py`).
- With several processes, SIGTERM ends evaluate at once, as kill -9 does; it also ends finetune and generate
  at once while they neither train nor sample.
- classify and evaluate refuse by name a shard that was altered or replaced by another set's, at the start and
  whenever they read an image of it later. So does generate before it changes or uploads a set, or with
  `--verify`, while it looks at a complete one by its files' sizes alone. A deleted shard is sampled again
  (`tests/unit/orchard/shards/test_altered_shards.py`). A stopped set has no manifest yet: there, only
  flipped bytes that are read and rows in the wrong shard are detected.
- Not tested: loss of power; file systems without `flock`, where the commands refuse to write.
"""


def render() -> str:
    """The page."""
    lines = [f"| fault | {' | '.join(COMMANDS)} |", "|---" * (1 + len(COMMANDS)) + "|"]
    for fault, cells in TABLE.items():
        lines.append(f"| {fault} | {' | '.join(f'{cell.sentence} ({cell.moments})' for cell in cells)} |")
    return "\n".join([TITLE, *lines, NOTES])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
