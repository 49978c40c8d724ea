"""Run by torchrun: trains with the network divided by FSDP, on the CPU, where accelerate itself would not.

python divided.py BASE OUTPUT writes whole.safetensors, and resumed.safetensors from a checkpoint half-way.
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, GradientAccumulationPlugin
from encoded_photos import cache
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from finetune.config import TrainLora
from finetune.models import lora
from finetune.models.families import family_of
from finetune.models.family import Family
from finetune.models.sampling import sample
from finetune.step.batches import TrainingData
from finetune.training import checkpoints, learner, sharded
from finetune.training.loop import train_steps
from orchard.adapters import peft_state
from orchard.bases import bases

CONFIG = TrainLora(steps=4, batch_size=4, accumulation=2, ema_decay=0.5, learning_rate=1e-2)
CPU = torch.device("cpu")


def accelerator_over_all() -> Accelerator:
    """An accelerator that behaves as under the FSDP config."""
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=CONFIG.accumulation)
    )
    if accelerator.num_processes > 1:
        # Both states, of which the one is now and then made again from the other.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            cpu_ram_efficient_loading=False,
        )
    return accelerator


def loaded(base: Path) -> Family:
    """The base with a fresh LoRA."""
    found = bases.resolve(str(base))
    family = family_of(bases.load(found, torch.float32, CPU), found)
    lora.inject(family.denoiser, 2, 2, seed=0)
    return family


def train(family: Family, accelerator: Accelerator, folder: Path, start: int) -> dict[str, torch.Tensor]:
    """The LoRA after a run from ``start``, with a checkpoint and a look after two steps."""
    parameters = [parameter for parameter in family.denoiser.parameters() if parameter.requires_grad]
    trained = learner.prepare(family, parameters, CONFIG, accelerator)
    if start:
        checkpoints.load(checkpoints.read(folder / f"step-{start:06d}"), accelerator, trained)
    divided = [parameter for parameter in trained.parameters if isinstance(parameter, DTensor)]
    assert bool(divided) is (accelerator.num_processes > 1)
    data = TrainingData(photos=cache(), files=list("abcdef"))
    losses = [0.0] * start
    for step in train_steps(family, data, trained, CONFIG, accelerator, start):
        losses.append(step.loss)
        if len(losses) == 2:
            checkpoints.save(folder, accelerator, trained, losses, {})
            with trained.for_inference():
                sample(family, "apple", [0, 1])
    with trained.for_inference():
        with lora.disabled([family.denoiser]):
            sample(family, "apple", [0, 1])
        with sharded.gathered_parameters([family.denoiser]):
            # Outside, the parameters are those of training again.
            found = peft_state.tensors({"unet": family.denoiser})
            tensors = {name: tensor.clone() for name, tensor in found.items()}
    assert [p for p in family.denoiser.parameters() if isinstance(p, DTensor)] or not divided
    return tensors


def main(base: Path, output: Path) -> None:
    """Train, then resume from half-way in a fresh network."""
    accelerator = accelerator_over_all()
    for name, start in (("whole", 0), ("resumed", 2)):
        tensors = train(loaded(base), accelerator, output, start)
        if accelerator.is_main_process:
            save_file(tensors, output / f"{name}.safetensors")
        accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
