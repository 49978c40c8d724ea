"""What the rows of a batch are led by: a guidance scale each, their text states, and what leads them away."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generate.planning.plan import Row
from orchard.bases import prompt_embeds
from orchard.bases.pipeline import Pipeline
from orchard.bases.prompt_embeds import STOCK, Reading

KEPT = 256
"""Prompts whose states stay in memory: those of SD 3.5 take 2 MB each, and every row may have its own."""
NEGATIVE = "negative_"
"""Before the names of the states that guidance leads away from."""


@dataclass(frozen=True)
class GuidanceScales:
    """(B, 1, 1, 1) float32 scales where a pipeline expects one number for all rows.

    Pipelines ask whether it is above 1 and multiply a difference of predictions with it, and no more.
    """

    scales: Tensor

    def __gt__(self, other: float) -> bool:
        return bool((self.scales > other).any())

    def __mul__(self, difference: Tensor) -> Tensor:
        """Rounded once, as with a plain number."""
        return (self.scales * difference).to(difference.dtype)


def scale(rows: Sequence[Row], device: torch.device) -> float | GuidanceScales:
    """What a pipeline's call takes as ``guidance_scale``."""
    scales = [row.guidance for row in rows]
    if len(set(scales)) == 1:
        return scales[0]
    return GuidanceScales(torch.tensor(scales, dtype=torch.float32, device=device).reshape(-1, 1, 1, 1))


class TextStates:
    """Text states of rows; a prompt is encoded once among `KEPT` others."""

    def __init__(self, pipe: Pipeline, contrast: float, reading: Reading = STOCK) -> None:
        self.pipe, self.contrast, self.reading = pipe, contrast, reading
        self._encoded = functools.lru_cache(KEPT)(self._encode)

    def of(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """B rows -> states, (B, ...) each, under the names the pipeline's call takes them by."""
        found = [self._encoded(row.prompt, self.reading) | self._away(row) for row in rows]
        return {name: torch.cat([states[name] for states in found]) for name in found[0]}

    def _away(self, row: Row) -> dict[str, Tensor]:
        """The states of the unconditional branch where they are not those of the empty prompt.

        With another class they are that class's, at weight ``contrast``, the negative prompt's at the rest.
        """
        own = self._encoded(row.prompt, self.reading)
        empty = {name: state for name, state in own.items() if name.startswith(NEGATIVE)}
        negative = self._as_negative(row.negative) if row.negative else empty
        if not row.other:
            return negative
        other = self._as_negative(row.other)
        if self.contrast == 1:
            return other
        return {name: torch.lerp(negative[name], other[name], self.contrast) for name in other}

    def _as_negative(self, prompt: str) -> dict[str, Tensor]:
        # Of the layer that stock pipelines take for what is led away from.
        states = self._encoded(prompt, replace(self.reading, clip_skip=0), away=True).items()
        return {f"{NEGATIVE}{name}": state for name, state in states if not name.startswith(NEGATIVE)}

    def _encode(self, prompt: str, reading: Reading, away: bool = False) -> dict[str, Tensor]:
        # One by one, so that a state does not depend on its company.
        return prompt_embeds.encode(self.pipe, [prompt], negative=True, reading=reading, away=away)
