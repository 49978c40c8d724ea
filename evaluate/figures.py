"""Pictures for the report, as data URIs: SVG curves that follow light and dark mode, PNG thumbnails.

Colours are Okabe and Ito's palette, and every series has its own marker too. Text stays text in
the SVG, is never read as TeX, and is escaped by matplotlib's XML writer.
"""

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from evaluate.reference import Reference
from evaluate.statistics import Row
from evaluate.table import arm_label

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6200", "#56b4e9", "#9a5b00", "#4d4d4d")
DARK = ("#56b4e9", "#f08a3c", "#2cc295", "#e3a3c6", "#f0e442", "#8fd0ff", "#e69f00", "#bdbdbd")
INK, MUTED, RULE = "#1d1f22", "#5d6268", "#d9d6d0"
DARK_INK, DARK_MUTED, DARK_RULE = "#e8e6e1", "#a6aab0", "#3a3e44"
MARKERS = "osD^vPX*"
THUMBNAIL = 128
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


def ratio_curve(
    rows: Sequence[Row], seeds: Sequence[tuple[float, float]], reference: Reference | None
) -> str:
    """Accuracy (0 to 1) over the share of real images, as an SVG data URI.

    ``rows`` are the arms of one design without shots, ``seeds`` (ratio, accuracy) of every run. The
    mean is a line, its Wilson interval a band, the reference's points diamonds.
    """
    with _Canvas() as canvas:
        axes = canvas.axes
        x = [row.ratio for row in rows]
        means = [row.weighted["accuracy"].mean for row in rows]
        low, high = zip(*(row.interval for row in rows), strict=True)
        axes.fill_between(x, low, high, color=LIGHT[0], alpha=0.16, lw=0, label="95% Wilson interval")
        axes.vlines(x, low, high, color=LIGHT[0], alpha=0.4, lw=1.2)
        axes.plot(x, np.array(means, dtype=float), color=LIGHT[0], lw=2, label="mean")
        axes.plot(*zip(*seeds, strict=True), "o", color=LIGHT[0], ms=5, mew=0, alpha=0.65, label="one run")
        if reference:
            known = [(ratio, value["accuracy"]) for ratio, value in reference.items()]
            axes.plot(
                *zip(*known, strict=True), MARKERS[2], color=LIGHT[1], ms=7, mew=0, label="student report"
            )
        _ratio_axis(axes, x)
        axes.set_ylabel("accuracy")
        return canvas.svg()


def shots_curve(rows: Sequence[Row]) -> str:
    """Mean accuracy over real images a class (log scale), a line for each ratio, as an SVG data URI."""
    with _Canvas() as canvas:
        for i, ratio in enumerate(dict.fromkeys(row.ratio for row in rows)):
            line = sorted((row for row in rows if row.ratio == ratio), key=lambda row: row.shots or 0)
            x = [row.shots or 0 for row in line]
            canvas.series(i, x, [row.weighted["accuracy"].mean for row in line], arm_label(ratio))
            low, high = zip(*(row.interval for row in line), strict=True)
            canvas.axes.vlines(x, low, high, color=LIGHT[i % len(LIGHT)], alpha=0.35, lw=1.2)
        ticks = sorted({row.shots or 0 for row in rows})
        canvas.axes.set_xscale("log", base=2)
        canvas.axes.set_xticks(ticks, [str(tick) for tick in ticks])
        canvas.axes.minorticks_off()
        canvas.axes.set_xlabel("real images a class")
        canvas.axes.set_ylabel("accuracy")
        return canvas.svg()


def recall_chart(ratios: Sequence[float], recalls: Mapping[str, Sequence[float | None]]) -> str:
    """Recall (0 to 1) of each class over the share of real images, as an SVG data URI.

    ``recalls`` holds one value a ratio for each class; an undefined one leaves a gap.
    """
    with _Canvas() as canvas:
        for i, (name, values) in enumerate(recalls.items()):
            canvas.series(i, ratios, values, _short(name))
        _ratio_axis(canvas.axes, ratios)
        canvas.axes.set_ylabel("recall")
        return canvas.svg()


def thumbnail(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 -> PNG data URI, the longer side at most 128 pixels."""
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8), "RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _data_uri("image/png", buffer.getvalue())


class _Canvas:
    """One figure under our settings, without pyplot's global state."""

    def __enter__(self) -> "_Canvas":
        import matplotlib
        from matplotlib.figure import Figure

        self._context = matplotlib.rc_context(cast(Any, SETTINGS))
        self._context.__enter__()
        self.figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        self.axes = self.figure.add_subplot()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def series(self, index: int, x: Sequence[float], y: Sequence[float | None], label: str) -> None:
        """One line with the colour and marker of its index."""
        colour, marker = LIGHT[index % len(LIGHT)], MARKERS[index % len(MARKERS)]
        # A label that starts with an underscore is hidden from matplotlib's legend.
        shown = f"\N{ZERO WIDTH SPACE}{label}" if label.startswith("_") else label
        # As numbers, an undefined value is NaN and leaves a gap.
        self.axes.plot(
            x, np.array(y, dtype=float), color=colour, marker=marker, ms=6, mew=0, lw=1.8, label=shown
        )

    def svg(self) -> str:
        """The figure with a legend beneath, as a data URI; the axis spans at least 0.2."""
        bottom, top = self.axes.get_ylim()
        self.axes.set_ylim(min(bottom, top - 0.2), min(top, 1.02))
        self.figure.legend(
            loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, handlelength=1.6
        )
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            # Names in scripts that matplotlib's own font lacks are drawn by the browser's fonts.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            self.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        return _data_uri("image/svg+xml", _adaptive(buffer.getvalue()).encode("utf-8"))


def _ratio_axis(axes: Any, ratios: Sequence[float]) -> None:
    ticks = sorted(set(ratios), reverse=True)
    axes.set_xticks(ticks, [f"{round(100 * ratio)}%" for ratio in ticks])
    axes.set_xlim(max(ticks) + 0.05, min(ticks) - 0.05)
    axes.set_xlabel("share of real images in training")


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


def _short(name: str, limit: int = 24) -> str:
    """A name that fits a legend, without characters that XML has no place for."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
