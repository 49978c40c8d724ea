"""What training changes: the LoRA's weights, their optimiser, and their moving average."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from finetune.config import TrainLora
from finetune.models import cpu_layers
from finetune.training import sharded
from finetune.training.optimizers import build, switch

if TYPE_CHECKING:
    from finetune.models.family import Family


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A LoRA in training, spread over the processes of a run."""

    network: Any
    """The family's network as accelerate has wrapped it."""
    parameters: Sequence[torch.nn.Parameter]
    optimizer: Any
    average: EMAModel | None
    """Exponential moving average of the parameters; what is saved, where there is one."""

    def start(self) -> None:
        """Put network and weights into the form for training."""
        self.network.train()
        switch(self.optimizer, training=True)

    def step(self) -> bool:
        """Take an optimiser step on the gradients that are there; whether the loss scaler let it be taken."""
        scaler = getattr(self.optimizer, "scaler", None)
        # accelerate's `step_was_skipped` does not see it of a fused optimiser, which skips by itself.
        scale = scaler.get_scale() if scaler else 0.0
        self.optimizer.step()
        self.optimizer.zero_grad()
        return not scaler or scaler.get_scale() >= scale

    def update_average(self) -> None:
        """Count the weights after a whole step into the average."""
        if self.average is not None:
            self.average.step(self.parameters)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, weights and network are as the adapter's user has them; after, as they were, to the bit.

        Random numbers drawn inside change nothing outside.
        """
        # A schedule-free optimiser's own way back rounds.
        kept = [parameter.detach().clone() for parameter in self.parameters]
        devices = {parameter.device for parameter in self.parameters if parameter.is_cuda}
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            self._finalise()
            yield
            self.start()
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)

    def _finalise(self) -> None:
        switch(self.optimizer, training=False)
        self.network.eval()
        if self.average is not None:
            self.average.copy_to(self.parameters)

    def finish(self, accelerator: Accelerator) -> None:
        """Leave the final weights in the bare network.

        Raises:
            FloatingPointError: they are not finite.
        """
        self._finalise()
        if not all(sharded.gathered(parameter).isfinite().all() for parameter in self.parameters):
            raise FloatingPointError("the weights are not finite after the last step")
        # Else each adapter of a run would wrap the same network once more.
        accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        accelerator.free_memory()

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, tensors whole; called by all processes."""
        average = self.average.state_dict() if self.average is not None else None
        return sharded.gathered(
            {
                "weights": list(self.parameters),
                "optimizer": self.optimizer.state_dict(),
                "average": average,
            }
        )

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        for parameter, saved in zip(self.parameters, state["weights"], strict=True):
            parameter.copy_(sharded.scattered(saved, parameter))
        order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.optimizer.load_state_dict(sharded.optimizer_state(state["optimizer"], order))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            pairs = zip(self.average.shadow_params, self.parameters, strict=True)
            self.average.shadow_params = [sharded.scattered(saved, like) for saved, like in pairs]


def prepare(
    family: "Family", parameters: Sequence[Any], config: TrainLora, accelerator: Accelerator
) -> Learner:
    """A learner over the trainable ``parameters``, or groups of them, of a family, with a fresh optimiser."""
    for model in family.models.values():
        cpu_layers.suit(model, accelerator.device)
        if config.gradient_checkpointing:
            _checkpoint_gradients(model)
    optimizer = build(config.optimizer, config.learning_rate, parameters)
    network, optimizer = accelerator.prepare(family.network, optimizer)
    # FSDP puts shards in the place of the parameters.
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    average = EMAModel(trained, decay=config.ema_decay) if config.ema_decay else None
    return Learner(network=network, parameters=trained, optimizer=optimizer, average=average)


def _checkpoint_gradients(model: Any) -> None:
    """Switch it on, by the name that diffusers or transformers has for it."""
    if hasattr(model, "enable_gradient_checkpointing"):
        model.enable_gradient_checkpointing()
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
