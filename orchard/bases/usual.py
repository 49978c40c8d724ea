"""What is usual for a base where options are left out, and whose settings those are."""

import math
import re
from dataclasses import dataclass, replace

from orchard.bases import components
from orchard.bases.bases import FLOW, MINI, Base
from orchard.errors import UserError

DIFFUSERS = "diffusers' examples/dreambooth"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a base is usually trained."""

    learning_rate: float = 1e-4
    batch_size: int
    """Images per batch."""
    accumulation: int = 1
    """Batches per optimiser step."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a base is usually sampled."""

    steps: int
    guidance: float | None = None
    """None leaves it to what is sampled."""
    scheduler: str = "dpmsolver++"
    source: str = ""
    """Empty where the numbers are those of this toolkit for all bases."""


TRAINING = {
    MINI: Training(learning_rate=1e-3, batch_size=16, source="docs/log/fruit.md"),
    # DataDream (Kim et al. 2024) takes the same rate on SD 2.1, and a cosine as here, at 8 images a step.
    "sd": Training(batch_size=4, source=f"the rate of {DIFFUSERS}/README.md, at 1 image a step there"),
    "sdxl": Training(batch_size=1, accumulation=4, source=f"{DIFFUSERS}/README_sdxl.md"),
    # The README gives 4e-4 for SD 3.0 at 512 px, the script itself and the tutorial of SD 3.5 Large 1e-4.
    "sana": Training(batch_size=1, accumulation=4, source=f"{DIFFUSERS}/README_sana.md"),
    "sd3": Training(batch_size=1, accumulation=4, source=f"{DIFFUSERS}/train_dreambooth_lora_sd3.py"),
}
"""By name, else by family."""
RATES = {
    "full": (5e-6, f"{DIFFUSERS}/README.md"),
    "textual_inversion": (5e-4, "diffusers' examples/textual_inversion/README.md"),
}
"""Of what is no adapter: learning rate and source, whatever the base."""
STEPS = Sampling(steps=20)
SAMPLING = {MINI: Sampling(steps=10, source="docs/log/fruit.md")}
TURBO = Sampling(steps=4, guidance=1.0, scheduler="base", source="the model cards of Turbo, 1 to 4 steps")
LIGHTNING = Sampling(steps=4, guidance=1.0, scheduler="euler", source="the model card of SDXL-Lightning")
DISTILLED = {"turbo": TURBO, "lightning": LIGHTNING}
"""Bases distilled to few steps without guidance, by a word of their names: no config says so."""


def training(base: Base, method: str = "lora") -> Training:
    """How the base is usually trained by a method."""
    found = TRAINING.get(base.name) or TRAINING[base.family]
    rate, source = RATES.get(method, (found.learning_rate, found.source))
    return replace(found, learning_rate=rate, source=source)


def sampling(base: Base) -> Sampling:
    """How the base is usually sampled."""
    words = re.split(r"[^a-z]+", base.name.rpartition("/")[2].lower())
    distilled = next((usual for word, usual in DISTILLED.items() if word in words), None)
    return distilled or SAMPLING.get(base.name, STEPS)


def shift(base: Base) -> float:
    """The shift of a base's noise levels in its own scheduler; 1, which is none, but for flow matching.

    diffusers' train_dreambooth_lora_sd3.py draws its noise levels from that scheduler, so it trains with it.
    """
    if base.prediction_type != FLOW:
        return 1.0
    config = components.config(base.folder / "scheduler" / "scheduler_config.json", base.name)
    found = config.get("shift", config.get("flow_shift", 1.0))
    if not isinstance(found, int | float) or not 0 < found < math.inf:
        raise UserError(f"--base {base.name}: its scheduler has a shift of {found!r}; give a number above 0")
    return float(found)
