"""One figure as an SVG whose colours follow light and dark mode.

Colours are Okabe and Ito's palette, and every series has its own marker too. Text stays text in
the SVG, is never read as TeX, and is escaped by matplotlib's XML writer.
"""

import base64
import io
import re
import warnings
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6200", "#56b4e9", "#9a5b00", "#4d4d4d")
DARK = ("#56b4e9", "#f08a3c", "#2cc295", "#e3a3c6", "#f0e442", "#8fd0ff", "#e69f00", "#bdbdbd")
INK, MUTED, RULE = "#1d1f22", "#5d6268", "#d9d6d0"
DARK_INK, DARK_MUTED, DARK_RULE = "#e8e6e1", "#a6aab0", "#3a3e44"
MARKERS = "osD^vPX*p"
"""One more than colours, so that no two of many series look alike."""
WIDE, SMALL = (4.4, 3.2), (3.0, 2.5)
"""Inches, at 72 points each; text has one size, so a small figure has larger text for its width."""
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orchard",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


class Canvas:
    """One figure under our settings, without pyplot's global state."""

    def __init__(self, size: tuple[float, float] = WIDE) -> None:
        self._size = size

    def __enter__(self) -> "Canvas":
        import matplotlib
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context(cast(Any, SETTINGS))
        self._context.__enter__()
        self.figure = Figure(figsize=self._size, layout="constrained")
        self.axes = self.figure.add_subplot()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def series(
        self, index: int, x: Sequence[float], y: Sequence[float | None], label: str, line: bool = True
    ) -> None:
        """One series with the colour and marker of its index."""
        colour, marker = LIGHT[index % len(LIGHT)], MARKERS[index % len(MARKERS)]
        # As numbers, an undefined value is NaN and leaves a gap.
        values = np.array(y, dtype=float)
        width = 1.8 if line else 0.0
        self.axes.plot(x, values, color=colour, marker=marker, ms=6, mew=0, lw=width, label=_shown(label))

    def bars(self, index: int, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
        """Upright intervals in the colour of a series."""
        self.axes.vlines(x, low, high, color=LIGHT[index % len(LIGHT)], alpha=0.35, lw=1.2)

    def band(
        self, index: int, x: Sequence[float], low: Sequence[float], high: Sequence[float], label: str
    ) -> None:
        """A shaded interval in the colour of a series."""
        colour = LIGHT[index % len(LIGHT)]
        self.axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0, label=_shown(label))

    def log_axis(self, ticks: Sequence[int], label: str) -> None:
        """A horizontal axis that doubles from step to step, marked at ``ticks``."""
        self.axes.set_xscale("log", base=2)
        self.axes.set_xticks(ticks, [str(tick) for tick in ticks])
        self.axes.minorticks_off()
        self.axes.set_xlabel(label)

    def share_axis(self, label: str) -> None:
        """An upright axis of shares for what is drawn by now; it spans at least 0.2 and ends at 1."""
        bottom, top = self.axes.get_ylim()
        # Room for half a marker above the highest point.
        self.axes.set_ylim(min(bottom, top - 0.2), min(top + 0.01, 1.02))
        self.axes.set_ylabel(label)

    def beside(self, index: int, places: Sequence[tuple[float, float]], label: str) -> None:
        """Diamonds that leave the axis as it is: one below it stands at its foot, with its value."""
        colour, (foot, top) = LIGHT[index], self.axes.get_ylim()
        inside = [place for place in places if foot <= place[1] <= top]
        x, y = zip(*inside, strict=True) if inside else ((), ())
        self.axes.plot(x, y, "D", color=colour, ms=7, mew=0, label=_shown(label), scaley=False)
        for x_below, value in (place for place in places if place[1] < foot):
            at = foot + 0.03 * (top - foot)
            self.axes.plot([x_below], [at], "v", color=colour, ms=7, mew=0, scaley=False)
            self.axes.annotate(
                f"{value:.3f}",
                (x_below, at),
                xytext=(-6, 0),
                textcoords="offset points",
                color=colour,
                ha="right",
                va="center",
                fontsize=8,
            )

    def forest(
        self,
        labels: Sequence[str],
        values: Sequence[float],
        intervals: Sequence[tuple[float, float] | None],
        colours: Sequence[int],
    ) -> None:
        """One line per arm, from above: its value, and its interval where there is one."""
        lines = range(len(labels), 0, -1)
        for line, value, interval, index in zip(lines, values, intervals, colours, strict=True):
            if interval is not None:
                self.axes.hlines(line, *interval, color=LIGHT[index], lw=2)
            self.axes.plot([value], [line], "o", color=LIGHT[index], ms=7, mew=0)
        self.axes.set_yticks(list(lines), [_shown(label, 30) for label in labels])
        self.axes.set_ylim(0.4, len(labels) + 0.6)
        self.axes.tick_params(axis="y", labelcolor=INK)
        self.axes.grid(False)

    def svg(self, legend: bool = True) -> str:
        """The figure as a data URI, with a legend beneath."""
        if legend:
            self.figure.legend(
                loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, handlelength=1.6
            )
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            # Names in scripts that matplotlib's own font lacks are drawn by the browser's fonts.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            self.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        data = base64.b64encode(_adaptive(buffer.getvalue()).encode("utf-8")).decode("ascii")
        return f"data:image/svg+xml;base64,{data}"


def _shown(label: str, limit: int = 27) -> str:
    """A name that fits a legend, without characters that XML has no place for."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label)
    short = clean if len(clean) <= limit else clean[: limit - 1] + "…"
    # A label that starts with an underscore is hidden from matplotlib's legend.
    return f"\N{ZERO WIDTH SPACE}{short}" if short.startswith("_") else short


def _adaptive(svg: str) -> str:
    """The same picture with its colours as CSS variables that have a dark value."""
    light = (*LIGHT, INK, MUTED, RULE)
    dark = (*DARK, DARK_INK, DARK_MUTED, DARK_RULE)
    svg = svg[svg.index("<svg") :]
    for i, colour in enumerate(light):
        svg = re.sub(rf"\b(fill|stroke): {colour}", rf"\1: var(--c{i})", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)

    def palette(colours: Sequence[str]) -> str:
        return "svg{" + ";".join(f"--c{i}:{colour}" for i, colour in enumerate(colours)) + "}"

    style = f"<style>{palette(light)}@media (prefers-color-scheme:dark){{{palette(dark)}}}</style>"
    end = svg.index(">") + 1
    return svg[:end] + style + svg[end:]
