"""What commands print: plain lines that copy and paste whole, and one progress bar."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from tqdm import tqdm

QUIET_SECONDS = 15.0


class Terminal(Console):
    """A console that reads no markup: names of strangers stand in what is printed."""

    def __init__(self, *, quiet: bool = False) -> None:
        # A notebook would put each line into a box of its own.
        super().__init__(quiet=quiet, markup=False, force_jupyter=False)

    def on_broken_pipe(self) -> None:
        """Leave it to `orchard.cli.signals`, which ends every command in the same way."""
        raise BrokenPipeError


def say(console: Console, line: str) -> None:
    """Print ``line`` as it is: no wrapping, colours or markup, since names and commands stand in it."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def bar(title: str, total: int, *, unit: str, show: bool = True) -> Iterator[Callable[..., None]]:
    """Yield ``advance(count, note)``; a live bar in a terminal or a notebook, a line every 15 s in a log."""
    console = Terminal(quiet=not show)
    if not (console.is_terminal or Console().is_jupyter):
        yield _lines(console, title, total, unit)
        return
    with tqdm(desc=title, total=total, unit=f" {unit}", file=console.file, disable=not show) as live:

        def advance(count: int, note: str = "") -> None:
            live.set_postfix_str(note, refresh=not count)
            live.update(count)

        yield advance


def _lines(console: Console, title: str, total: int, unit: str) -> Callable[..., None]:
    started = last = time.monotonic()
    done = 0

    def advance(count: int, note: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        # An advance of nothing is news: what comes next takes a while.
        if count and now - last < QUIET_SECONDS and done < total:
            return
        last = now
        speed = done / max(now - started, 1e-9)
        left = f", {speed:.1f}/s, {(total - done) / speed:.0f} s left" if done else ""
        say(console, f"{title}: {done}/{total} {unit}{left} {note}".rstrip())

    return advance
