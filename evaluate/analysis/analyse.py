"""Everything that is computed from the records, once: for the page, the terminal and the files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evaluate.analysis.exchange_rate import Exchange, Law, exchange, laws, sources
from evaluate.analysis.external_sets import ExternalResult, external_results
from evaluate.analysis.fairness import warnings
from evaluate.analysis.generators import Compared, Measured, compared
from evaluate.analysis.significance import Resolution, smallest_detectable
from evaluate.analysis.strata import Strata, Stratum, accuracies
from evaluate.analysis.summary import MARGIN, PLAIN, ArmKey, Change, Row, arms, change, summarise
from evaluate.analysis.verdict import basis, caveat, limits, on_other_sets, verdict
from evaluate.records.records import WITHOUT, Record, choice_key, complete


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One screen in one mixture."""

    arm: ArmKey
    """The mixture with all screens."""
    screen: str
    change: Change
    """What the screen brought: from without it (`before`) to all screens, over the seeds that both have."""


def ablations(records: Iterable[Record]) -> list[Ablation]:
    """Every screen that was left out, mixture after mixture; p is not corrected for their number."""
    found = arms(records)
    lines = []
    for arm, runs in found.items():
        with_all = found.get(replace(arm, kind=PLAIN[0]), [])
        brought = change(runs, with_all) if arm.kind.startswith(WITHOUT) else None
        if brought is not None:
            lines.append(
                Ablation(
                    arm=replace(arm, kind=PLAIN[0]),
                    screen=arm.kind.removeprefix(WITHOUT),
                    change=brought,
                )
            )
    return lines


@dataclass(frozen=True, kw_only=True)
class MixingChoice:
    """What an arm's own real images chose; each draw of them does anew, and each fold."""

    arm: ArmKey
    fold: int | None
    repeat: int | None
    draw: int | None
    """The seed of the draw; None where all of the arm's choices have the same one."""
    chosen: str
    tried: Mapping[str, float]
    """Candidate -> mean negative log-likelihood of images that it has not seen, nats."""
    untried: Sequence[str]
    errors: Mapping[str, float] = field(default_factory=dict)
    """Candidate -> standard error of the difference to no synthetic images, nats; none of older versions."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """What a search took, as records have it; empty where nothing was searched."""
    given_up: Sequence[str] = ()
    """What a search found worse before it was tried to its end."""


def choices(records: Iterable[Record]) -> list[MixingChoice]:
    """Every choice once, arm after arm."""
    found: list[MixingChoice] = []
    for arm, runs in arms(records).items():
        made = {choice_key(run): complete(run) for run in reversed(runs) if run.get("mixing_choice")}
        draws = {run["subset_seed"] for run in made.values()}
        for run in reversed(made.values()):
            choice = run["mixing_choice"]
            assert choice is not None
            draw = run["subset_seed"] if len(draws) > 1 else None
            found.append(MixingChoice(arm=arm, fold=run["fold"], repeat=run["repeat"], draw=draw, **choice))
    return found


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a sweep says."""

    verdict: str
    on_other_sets: Sequence[str]
    """What the arm of the verdict does on each further real set."""
    basis: str
    """What the verdict rests on, and why it is about this arm; empty without a comparison."""
    caveat: str
    """The one thing to keep in mind when reading the verdict; empty without a comparison."""
    limits: Sequence[str]
    margin: float
    """Percentage points of accuracy that count as no loss."""
    rows: Sequence[Row]
    resolutions: Sequence[Resolution]
    """One for each size of test set."""
    exchanges: Sequence[Exchange]
    """One for each kind of generator."""
    no_exchange: str
    """Why a kind that was tried has no exchange rate; empty where each has one."""
    laws: Sequence[Law | str]
    """One for each source alone, or the sentence that says why it has none."""
    strata: Sequence[Stratum]
    fairness: Sequence[str]
    """Warnings about arms whose worst class pays for the others."""
    elsewhere: Sequence[ExternalResult]
    choices: Sequence[MixingChoice]
    screens: Sequence[Ablation]
    generators: Sequence[Compared]
    """Where arms differ in what made their images."""


def analyse(
    records: Sequence[Record],
    margin: float = MARGIN,
    strata: Strata | None = None,
    measured: Sequence[Measured] = (),
) -> Analysis:
    """``margin`` in percentage points; ``strata`` says of each test image what kind it is.

    ``measured`` is what was found of the generators' images.
    """
    rows = summarise(records, margin)
    kinds, elsewhere = accuracies(records, strata or {}), external_results(records, margin)
    rates = {origin: exchange(records, *origin) for origin in sources(records)}
    known = [rate for rate in rates.values() if isinstance(rate, Exchange)]
    tried = {(row.arm.kind, row.arm.generator) for row in rows if row.n_synthetic}
    reasons = {origin: rate for origin, rate in rates.items() if isinstance(rate, str)}
    missing = [reasons[one] for one in reasons if one in tried] or ([] if known else [*reasons.values()])
    return Analysis(
        verdict=verdict(rows, margin),
        on_other_sets=on_other_sets(rows, elsewhere, margin),
        basis=basis(rows),
        caveat=caveat(rows, margin),
        limits=limits(rows, margin),
        margin=margin,
        rows=rows,
        resolutions=[smallest_detectable(n) for n in sorted({row.n_test for row in rows})],
        exchanges=known,
        no_exchange=next(iter(missing), ""),
        laws=laws(records),
        strata=kinds,
        fairness=warnings(rows, kinds, elsewhere),
        elsewhere=elsewhere,
        choices=choices(records),
        screens=ablations(records),
        generators=compared(records, measured, margin),
    )


def as_json(value: Any) -> Any:
    """Dataclasses and named tuples as mappings, so that each number of a JSON file has its name."""
    if hasattr(value, "_asdict"):
        return value._asdict()
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return value
