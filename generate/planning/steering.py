"""What leads the rows of a class: how strongly, how far from their guides, and away from what."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from generate.config import Generate
from generate.planning import prompts, repainting
from generate.planning.ranges import Range, parse
from generate.planning.settings import Settings, usual_sampling
from orchard.bases import components
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.errors import UserError
from orchard.images.splits import stable_hash

GUIDANCE, STRENGTH = 2.0, 0.7
LEVELS = 5
"""Strengths of a range. A batch has rows of one strength, so more of them would leave more batches short."""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """All that leads the rows of one class; what one row takes of it depends on the row's number alone."""

    guidance: Range = field(default_factory=lambda: Range(GUIDANCE, GUIDANCE))
    strength: Range | None = None
    """Share of a real image that is replaced; None without such images, and where each pass of a repainting
    has its own."""
    negative: str = ""
    """The prompt that guidance leads away from."""
    others: tuple[Sequence[str], ...] = ()
    """Of each other class its prompts, in the order in which rows take them."""

    def guidance_of(self, seed: int) -> float:
        """The guidance scale of the row with this seed."""
        return self.guidance.drawn(stable_hash("guidance", seed))

    def strength_of(self, seed: int) -> float | None:
        """The strength of the row with this seed."""
        return self.strength.drawn(stable_hash("strength", seed), LEVELS) if self.strength else None

    def other_of(self, place: int, *salt: object) -> str:
        """The prompt of another class, each class once before any comes again; nothing without others."""
        if not self.others:
            return ""
        cycle, turn = divmod(place, len(self.others))
        words = self.others[_order(len(self.others), *salt, cycle)[turn]]
        return words[place % len(words)]


@functools.lru_cache(maxsize=16)
def _order(number: int, *salt: object) -> list[int]:
    return sorted(range(number), key=lambda place: stable_hash("contrast", *salt, place))


def resolve(
    config: Generate,
    base: Base,
    settings: Settings,
    label: str,
    classes: Sequence[str],
    prompts_of: Callable[[str], Sequence[str]],
) -> Steering:
    """The steering of class ``label`` among ``classes``.

    Raises:
        UserError: the strength leaves no step to sample, there is nothing to lead away by, or no other class.
    """
    usual = repainting.GUIDANCE if config.repaint else GUIDANCE
    usual = usual_sampling(config, base).guidance or usual
    guidance = parse("--guidance", usual if config.guidance is None else config.guidance)
    strength = _strength(config, settings)
    _require_guided(config, base, guidance)
    others = [name for name in classes if name != label] if config.contrast else []
    if 0 < config.contrast < 1 and not FAMILIES[base.family].clip_encoders:
        raise UserError(
            f"--contrast {config.contrast:g}: prompts of --base {base.name} have a length each, so no two "
            "can be mixed; give 1, or leave it out"
        )
    if config.contrast and not others:
        raise UserError(
            f"--contrast {config.contrast:g}: leads away from other classes, and {label} is alone"
        )
    return Steering(
        guidance=guidance,
        strength=strength,
        negative=prompts.negative(config.negative_prompt, label),
        others=tuple(prompts_of(name) for name in others),
    )


def _strength(config: Generate, settings: Settings) -> Range | None:
    given = STRENGTH if config.image_guidance and config.strength is None else config.strength
    found = None if given is None else parse("--strength", given)
    least = repainting.least_strength(config.repaint) if config.repaint else None
    least = found.low if found else least
    if least is not None and int(settings.steps * least) < 1:
        raise UserError(f"--strength {least:g}: of {settings.steps} steps none is left; give more of either")
    return found


def _require_guided(config: Generate, base: Base, guidance: Range) -> None:
    """Raise `UserError` where nothing is led away from anything, or not row by row."""
    option = "--negative_prompt" if config.negative_prompt else "--contrast" if config.contrast else ""
    if option and guidance.high <= 1:
        raise UserError(
            f"{option}: guidance {guidance.high:g} leads away from nothing; give --guidance above 1"
        )
    path = base.folder / "unet" / "config.json"
    is_input = path.is_file() and components.config(path, base.name).get("time_cond_proj_dim") is not None
    if is_input and (option or guidance.is_wide):
        raise UserError(
            f"{option or f'--guidance {guidance.argument}'}: --base {base.name} takes guidance as a number "
            "for all rows and leads away from nothing; leave it out"
        )
