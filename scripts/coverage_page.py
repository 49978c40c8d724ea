"""`docs/coverage.md` from the data of `make coverage`: every line that no test ran, by its text."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "coverage.md"
HEAD = """# What no test runs

`make coverage` runs the tests of `make test`, their commands in processes of their own too. It found:
{sum}
A line that ran is not yet tested; one that did not run surely is not. Lines that only a GPU, `make slow` or a
process that is killed reaches stand here too.
"""


def main() -> None:
    """Write the page and print the sum."""
    coverage = Coverage()
    coverage.load()
    found = {Path(name): coverage.analysis2(name) for name in sorted(coverage.get_data().measured_files())}
    statements = sum(len(of[1]) for of in found.values())
    missing = sum(len(of[3]) for of in found.values())
    total = f"{statements - missing} of {statements} statements ran ({1 - missing / statements:.1%})."
    parts = [section(path, of[1], of[3]) for path, of in found.items() if of[3]]
    PAGE.write_text("\n".join([HEAD.format(sum=total), *parts]), encoding="utf-8")
    print(f"{total}\nwrote {PAGE.relative_to(ROOT)}")


def section(path: Path, statements: Sequence[int], missing: Sequence[int]) -> str:
    """A file's lines that did not run, a line each for those that follow each other."""
    lines = path.read_text(encoding="utf-8").splitlines()
    share = 1 - len(missing) / len(statements)
    rows = [f"- {_range(run)}: `{lines[run[0] - 1].strip()}`" for run in runs(statements, missing)]
    return "\n".join([f"## {path.relative_to(ROOT)} ({share:.0%})", "", *rows, ""])


def runs(statements: Sequence[int], missing: Sequence[int]) -> Iterator[list[int]]:
    """Missing statements, those together between which none ran."""
    place = {line: index for index, line in enumerate(statements)}
    run = [missing[0]]
    for before, line in pairwise(missing):
        if place[line] != place[before] + 1:
            yield run
            run = []
        run.append(line)
    yield run


def _range(run: Sequence[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}"


if __name__ == "__main__":
    main()
