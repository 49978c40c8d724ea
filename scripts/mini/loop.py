"""What every stage shares: a device, a clock, a checkpoint, a log line, bf16 weights with masters."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from orchard.errors import UserError
from orchard.files import atomic

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAVE_SECONDS = 480
LOG_STEPS = 100


def bf16() -> torch.autocast:
    """Forward passes in bf16 where that is safe."""
    return torch.autocast(DEVICE.type, torch.bfloat16)


@dataclass(kw_only=True)
class Clock:
    """Steps and seconds of a stage, kept across restarts."""

    name: str
    steps: int
    """Steps in all."""
    batch_size: int
    seconds: float = 0.0
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> float:
        """Share of the steps taken, 0 to 1."""
        return min(self.step / self.steps, 1.0) if self.steps else 1.0


def learning_rate(done: float, peak: float, warm_up: float = 0.01, decay_from: float = 0.6) -> float:
    """Share of the steps taken -> rate: linear up, flat, then a cosine down to 2% of the peak."""
    if done < warm_up:
        return peak * (done / warm_up + 0.01)
    if done < decay_from:
        return peak
    phase = (done - decay_from) / (1 - decay_from)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * phase)))


def ticks(clock: Clock, log: Path) -> Iterator[bool]:
    """Yield until every step is taken; True asks the stage to save. Stops on a loss that is not finite."""
    last = saved = time.monotonic()
    first_step, first_seconds = clock.step, clock.seconds
    while clock.done < 1:
        now = time.monotonic()
        save = now - saved > SAVE_SECONDS
        saved = now if save else saved
        yield save
        _require_finite(clock)
        clock.step += 1
        now = time.monotonic()
        clock.seconds, last = clock.seconds + now - last, now
        if clock.step % LOG_STEPS == 0:
            rate = (clock.step - first_step) * clock.batch_size / (clock.seconds - first_seconds)
            _log(clock, log, rate)


def _require_finite(clock: Clock) -> None:
    """After every step, so that nothing else ever becomes a checkpoint."""
    if not all(math.isfinite(value) for value in clock.losses.values()):
        raise UserError(
            f"{clock.name}: loss is not finite at step {clock.step + 1}; the checkpoint before it is kept, "
            "the same command goes on there with other draws"
        )


def _log(clock: Clock, log: Path, rate: float) -> None:
    line = {
        "stage": clock.name,
        "step": clock.step,
        "done": round(clock.done, 4),
        "images_per_second": round(rate, 1),
        "minutes_left": round((clock.steps - clock.step) * clock.batch_size / rate / 60, 1),
        **{key: round(value, 5) for key, value in clock.losses.items()},
    }
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def save(path: Path, clock: Clock, **parts: object) -> None:
    """Write the stage's state, whole or not at all."""
    with atomic.whole_file(path) as aside:
        torch.save({"spent": clock.seconds, "step": clock.step, **parts}, aside)


def restore(path: Path, clock: Clock) -> dict | None:
    """The state saved for this stage, or None on a first start."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True, map_location=DEVICE)
    clock.seconds, clock.step = state["spent"], state["step"]
    return state


def taken(path: Path) -> tuple[float, int]:
    """Seconds and steps of the stage whose state lies under ``path``."""
    state = torch.load(path, weights_only=True, mmap=True)
    return state["spent"], state["step"]


class Masters:
    """fp32 masters of a bf16 module: bf16 AMX kernels are fast, bf16 updates would be lost."""

    def __init__(self, *modules: nn.Module) -> None:
        self.live = [p for module in modules for p in module.parameters()]
        self.full = [p.detach().float().clone() for p in self.live]

    def step(self, optimizer: torch.optim.Optimizer, rate: float, clip: float = 1.0) -> None:
        """One update of the masters from the bf16 gradients, then of the bf16 weights."""
        for live, full in zip(self.live, self.full, strict=True):
            full.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        torch.nn.utils.clip_grad_norm_(self.full, clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        self._publish()

    def restore(self, tensors: list[Tensor]) -> None:
        """Take masters saved by an earlier run."""
        for mine, theirs in zip(self.full, tensors, strict=True):
            mine.data.copy_(theirs)
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        torch._foreach_copy_(self.live, self.full)


class Average:
    """Exponential moving average of the masters, warm-up after Karras et al. 2024 in spirit."""

    def __init__(self, tensors: list[Tensor], decay: float = 0.9995) -> None:
        self.values = [t.clone() for t in tensors]
        self.decay = decay

    @torch.no_grad()
    def update(self, tensors: list[Tensor], step: int) -> None:
        """Fold the current weights in; early steps forget faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, tensors, 1 - decay)
