"""Between two steps: save a checkpoint when it is time, and end the run when a signal came."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from finetune.config import TrainLora
from finetune.generators.config import TrainGenerator
from finetune.training import checkpoints
from finetune.training.checkpoints import Learner
from finetune.training.interrupt import Interrupt
from orchard import devices, heartbeat


class StopError(Exception):
    """A signal ended the run; says what was saved, and holds the exit code."""

    def __init__(self, saved: Path | None, code: int) -> None:
        super().__init__(
            f"saved {saved}; resume with --resume latest"
            if saved
            else "DeepSpeed cannot save a checkpoint to resume from, so start the run over"
        )
        self.code = code


def as_command(train: Callable[[], object]) -> None:
    """Run ``train`` as a command: a signal ends it in one line, with its own exit code."""
    try:
        train()
    except StopError as stopped:
        if devices.processes().is_main_process:
            print(f"stopped; {stopped}", file=sys.stderr)
        heartbeat.leave()  # all stop together
        raise SystemExit(stopped.code) from None
    devices.processes().destroy_process_group()


def save_due(
    config: TrainLora | TrainGenerator,
    accelerator: Accelerator,
    interrupt: Interrupt,
    learner: Learner,
    losses: Sequence[float],
    name: str,
    identity: Mapping[str, Any],
) -> None:
    """Save a checkpoint of job ``name`` if one is due or a signal came; after a signal raise `StopError`."""
    code = interrupt.exit_code(accelerator)
    due = config.save_every and len(losses) % config.save_every == 0
    if len(losses) == config.steps or not (code or due):
        return
    if accelerator.distributed_type == DistributedType.DEEPSPEED:  # keeps parts of its state to itself
        assert code, "configure_deepspeed refuses --save_every"
        raise StopError(None, code)
    folder = checkpoints.folder_of(config.output, name)
    path = checkpoints.save(folder, accelerator, learner, losses, identity)
    if accelerator.is_main_process:
        checkpoints.prune(folder, config.keep)
    if code:
        raise StopError(path, code)
