"""What training changes: the adapter's weights, their optimiser, and their moving average."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from finetune.config import TrainLora
from finetune.models import cpu_layers, lora
from finetune.models.family import Family, Network
from finetune.training import sharded
from finetune.training.optimizers import RELATIVE_RATE, build, set_mode


@dataclass(frozen=True, kw_only=True)
class Learner:
    """An adapter in training, on all processes of a run."""

    network: Any
    """The family's network as accelerate has wrapped it."""
    parameters: Sequence[torch.nn.Parameter]
    optimizer: Any
    average: EMAModel | None
    """Exponential moving average of the parameters; if there is one, it is what is saved."""
    secret: torch.Tensor | None = None
    """(32,) uint8 that the draws of a private run come from, whose guarantee needs that nobody knows it;
    None for any other run."""

    def train(self) -> None:
        """Switch network and optimiser to training."""
        self.network.train()
        set_mode(self.optimizer, training=True)

    def update_average(self) -> None:
        """Count the weights after a whole step into the average."""
        if self.average is not None:
            self.average.step(self.parameters)

    @contextmanager
    def for_inference(self) -> Iterator[None]:
        """Inside, the network has the weights to save, in evaluation mode; afterwards those in training.

        Changes no bit of the training, nor do random numbers drawn inside.
        """
        # A schedule-free optimiser's own way back rounds. Without it or an average nothing is changed.
        inner = getattr(self.optimizer, "optimizer", self.optimizer)  # what accelerate has wrapped
        changed = self.average is not None or hasattr(inner, "eval")
        kept = [parameter.detach().clone() for parameter in self.parameters] if changed else []
        devices = {parameter.device for parameter in self.parameters if parameter.is_cuda}
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            set_mode(self.optimizer, training=False)
            self.network.eval()
            if self.average is not None:
                self.average.copy_to(self.parameters)
            yield
            self.train()
            for parameter, value in zip(self.parameters, kept, strict=False):
                parameter.copy_(value)

    def require_finite(self) -> None:
        """Raise `FloatingPointError` unless all weights are finite; called by all processes."""
        if not all(sharded.gathered(parameter).isfinite().all() for parameter in self.parameters):
            raise FloatingPointError("the weights are not finite after the last step")

    def release(self, accelerator: Accelerator) -> None:
        """Leave the network unwrapped, in evaluation mode: else the next adapter would wrap it once more."""
        self.network.eval()
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
                "secret": self.secret,
            }
        )

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        for parameter, saved in zip(self.parameters, state["weights"], strict=True):
            parameter.copy_(sharded.scattered(saved, parameter))
        order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.optimizer.load_state_dict(sharded.optimizer_state(state["optimizer"], order))
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            pairs = zip(self.average.shadow_params, self.parameters, strict=True)
            self.average.shadow_params = [sharded.scattered(saved, like) for saved, like in pairs]
        if self.secret is not None:
            self.secret.copy_(state["secret"])


def prepare(
    family: Family, parameters: Sequence[Any], config: TrainLora, accelerator: Accelerator
) -> Learner:
    """A learner with a fresh optimiser over a family's trainable ``parameters``, or groups of them."""
    for model in family.models.values():
        cpu_layers.optimize_for_cpu(model, accelerator.device)
        if config.gradient_checkpointing:
            _checkpoint_gradients(model)
    optimizer = build(config, parameters)
    network, optimizer = accelerator.prepare(Network(family), optimizer)
    # FSDP puts shards in the place of the parameters.
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    average = EMAModel(trained, decay=config.ema_decay) if config.ema_decay else None
    secret = torch.tensor(list(secrets.token_bytes(32)), dtype=torch.uint8) if config.dp_epsilon else None
    return Learner(network=network, parameters=trained, optimizer=optimizer, average=average, secret=secret)


def parameter_groups(
    parameters: Mapping[str, Sequence[torch.nn.Parameter]], family: Family, config: TrainLora
) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser: one for each rate, that of the denoiser first.

    Text encoders may have one of their own, and with LoRA+ B matrices.
    """
    text, ratio = config.text_encoder_learning_rate / config.learning_rate, config.loraplus_lr_ratio
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, model in family.models.items():
        apart = bool(text) and name != family.prefix
        faster = lora.up_matrices(model) if ratio != 1 else frozenset()
        for parameter in parameters[name]:
            factor = ratio if parameter in faster else 1.0
            groups.setdefault((apart, factor), []).append(parameter)
    return [
        {"params": found, RELATIVE_RATE: (text if apart else 1.0) * factor}
        for (apart, factor), found in groups.items()
    ]


def _checkpoint_gradients(model: Any) -> None:
    """Switch it on, under the name that diffusers or transformers has for it."""
    if hasattr(model, "enable_gradient_checkpointing"):
        model.enable_gradient_checkpointing()
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
