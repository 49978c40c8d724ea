"""How arms and numbers are written everywhere."""

from evaluate.analysis.intervals import Interval, Spread
from evaluate.analysis.student_report import Reference
from evaluate.analysis.summary import UNION, ArmKey, table_of
from evaluate.generators import GIVEN, NONE
from evaluate.records.records import REAL_PART, WITHOUT

KINDS = {
    "fold": "cross-validated",
    REAL_PART: "real part alone",
    "untuned": "untuned base",
    "strong": "strong augmentation",
}
"""Kinds of arms that do not go without saying."""
TITLES = {
    ("ratio", "substitute"): "Substitute: real images replaced",
    ("ratio", "augment"): "Augment: synthetic images added",
    ("shots", "augment"): "Low-shot: few real images per class",
    ("fold", "substitute"): "Cross-validation: real images replaced",
    ("fold", "augment"): "Cross-validation: synthetic images added",
}
UNDEFINED, NOTHING = "undefined", "\N{EN DASH}"
REAL_ONLY, SYNTHETIC_ONLY = "100% real", "100% synthetic"


def mixture(ratio: float) -> str:
    """What a share of real images is called: ``100% real``, ``30/70``, ``100% synthetic``."""
    real = round(100 * ratio)
    return {100: REAL_ONLY, 0: SYNTHETIC_ONLY}.get(real, f"{real}/{100 - real}")


def label(arm: ArmKey) -> str:
    """What an arm is called: ``30/70``, ``4-shot + tuned``, ``4-shot + untuned``, ``30/70, mixup``."""
    by = maker(arm)
    if arm.shots is None:
        parts = [mixture(arm.ratio), *([by] if by else [])]
    else:
        parts = [f"{arm.shots}-shot" + f" + {by}" * bool(by)]
    if control(arm.kind):
        parts.append(control(arm.kind))
    if arm.mixing != UNION:
        parts.append(arm.mixing.replace("_", " "))
    if arm.total:
        parts.append(f"{arm.total:,} images")
    return ", ".join(parts)


def maker(arm: ArmKey) -> str:
    """What is said of an arm's generator; nothing of the set that was given."""
    if arm.ratio == 1 or arm.kind == REAL_PART or arm.generator == GIVEN:
        return ""
    # Which ones it was chosen among stands in the table of choices.
    return KINDS[REAL_PART] if arm.generator == NONE else arm.generator.partition(" of ")[0]


def control(kind: str) -> str:
    """What is said of an arm besides its mixture; nothing of a plain one."""
    if kind.startswith(WITHOUT):
        return f"without the screen {kind.removeprefix(WITHOUT).replace('_', ' ')}"
    return KINDS.get(kind, "")


def title(arm: ArmKey) -> str:
    """The heading of the table that an arm stands in."""
    return TITLES.get(table_of(arm), f"Design: {arm.design}")


def share(value: float | None) -> str:
    """A share from 0 to 1, or a distance whose estimate may lie below 0, with three decimals."""
    return UNDEFINED if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def spread(value: Spread) -> str:
    """Mean, and the standard deviation where there is one."""
    return share(value.mean) + ("" if value.sd is None else f" ± {value.sd:.3f}")


def percent(value: float | None) -> str:
    """A share from 0 to 1 as a percentage with one decimal."""
    return UNDEFINED if value is None else f"{100 * value:.1f}%"


def number(value: float) -> str:
    """Three digits, without an exponent: ``2.47``, ``12.3``, ``1,000``."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def points(value: float | None) -> str:
    """A signed difference in percentage points with one decimal; a rounded zero has no sign."""
    if value is None:
        return NOTHING
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def points_between(interval: Interval) -> str:
    """An interval of differences in percentage points."""
    return f"{points(interval[0])} to {points(interval[1])}"


def p_value(value: float | None) -> str:
    """A p value to two digits, as ``= 0.03`` or ``< 0.001``."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.0995 else f"= {value:.2f}"


def counted(count: int, thing: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {thing}" + "s" * (count != 1)


def quoted(arm: ArmKey, reference: Reference | None) -> dict[str, float] | None:
    """The reference's figures for this arm, if it has any: plain mixtures of the substitute design."""
    usual = ("substitute", "ratio", UNION, None, 0)
    if reference is None or (arm.design, arm.kind, arm.mixing, arm.shots, arm.total) != usual:
        return None
    if arm.generator not in (NONE, GIVEN):
        return None
    return next((dict(known) for ratio, known in reference.items() if abs(ratio - arm.ratio) < 1e-9), None)
