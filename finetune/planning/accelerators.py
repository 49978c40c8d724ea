"""The processes and devices of a run, and how they share its batches."""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend, GradientAccumulationPlugin

from finetune.config import TrainLora
from finetune.generators.config import TrainGenerator
from finetune.outputs import logs
from orchard import devices
from orchard.adapters.provenance import FULL
from orchard.cli import cli

MIXED = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}

WHOLE_RUN = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Plugins that do not release a network until the process ends."""


def accelerator_for(config: TrainLora | TrainGenerator) -> tuple[Accelerator, torch.dtype]:
    """The accelerator of a run and the precision of its networks.

    Raises:
        UserError: the device has no such precision, or torch cannot compile here.
    """
    compiles = isinstance(config, TrainLora) and config.compile
    if compiles:
        devices.require_compiler()
    device = devices.processes().device
    dtype = devices.torch_dtype(config.precision, device)
    accelerator = Accelerator(
        mixed_precision=MIXED[dtype],
        cpu=device.type == "cpu",
        # Told as a plugin, it is not overruled by what `accelerate launch` puts into the environment;
        # `share_batches` has the number.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # Otherwise what `accelerate launch` says of it.
        dynamo_backend=DynamoBackend.INDUCTOR if compiles else None,
        log_with=None if config.log_with == "none" else config.log_with,
        project_dir=config.output / logs.FOLDER,
    )
    return accelerator, dtype


def share_batches(config: TrainLora | TrainGenerator, accelerator: Accelerator) -> None:
    """Tell the accelerator the batches of a run, whose options are resolved.

    Raises:
        UserError: the processes cannot share a batch, or the launcher's plugin cannot do what the options
            ask for.
    """
    cli.check(
        config.batch_size % accelerator.num_processes == 0,
        f"--batch_size {config.batch_size}: cannot be shared by {accelerator.num_processes} processes; "
        "give a multiple",
    )
    plugin = accelerator.distributed_type
    if isinstance(config, TrainGenerator):
        cli.check(
            plugin not in WHOLE_RUN, f"{plugin.value}: not for a network of this size; launch without it"
        )
        return
    cli.check(
        config.export != "merged" or plugin not in WHOLE_RUN,
        f"--export merged: {plugin.value} may divide the base's weights, which it takes; train without",
    )
    cli.check(
        config.quantize == "none" or plugin not in WHOLE_RUN,
        f"--quantize {config.quantize}: {plugin.value} divides weights that can be trained; give none",
    )
    if config.dp_epsilon:
        _require_private(accelerator)
    accelerator.gradient_accumulation_steps = config.accumulation
    if plugin == DistributedType.DEEPSPEED:
        configure_deepspeed(config, accelerator)


def _require_private(accelerator: Accelerator) -> None:
    """Raise `UserError` for launches whose gradients cannot be clipped photo by photo."""
    plugin, compiler = accelerator.distributed_type, accelerator.state.dynamo_plugin.backend
    cli.check(
        accelerator.num_processes == 1 and plugin not in WHOLE_RUN,
        f"--dp_epsilon: trains in one process, not {processes_of(accelerator)}; launch with "
        "--num_processes 1",
    )
    cli.check(
        accelerator.scaler is None,
        "--precision fp16: does not go with --dp_epsilon, since gradients are scaled; give bf16 or fp32",
    )
    cli.check(
        compiler == DynamoBackend.NO,
        "--dp_epsilon: gradients of single photos are taken by hooks, which a compiler leaves out; launch "
        "without --dynamo_backend",
    )


def processes_of(accelerator: Accelerator) -> str:
    """How many processes there are, and which plugin divides the work among them."""
    plugin = accelerator.distributed_type
    named = f" ({plugin.value})" if plugin in WHOLE_RUN else ""
    return f"{accelerator.num_processes}{named}"


def arithmetic_of(accelerator: Accelerator, dtype: torch.dtype) -> dict[str, str]:
    """What an adapter's last bits depend on: precision, and the compiler if there is one."""
    compiler = accelerator.state.dynamo_plugin.backend
    compiled = {} if compiler == DynamoBackend.NO else {"compiler": compiler.value.lower()}
    return {"precision": devices.dtype_name(dtype), **compiled}


def require_jobs(accelerator: Accelerator, jobs: int) -> None:
    """Raise `UserError` when the launcher's plugin cannot train so many adapters in one run."""
    plugin = accelerator.distributed_type
    cli.check(
        jobs <= 1 or plugin not in WHOLE_RUN,
        f"--classes: {plugin.value} does not release the base and trains one adapter per run, not {jobs}; "
        "name one class, or give --joint",
    )


def require_method(accelerator: Accelerator, method: str) -> None:
    """Raise `UserError` for a method that the launcher's plugin cannot train."""
    plugin = accelerator.distributed_type
    cli.check(
        method != FULL or plugin not in WHOLE_RUN,
        f"--method {method}: {plugin.value} divides the weights and would not write them as a pipeline; "
        "launch without it",
    )


def configure_deepspeed(config: TrainLora, accelerator: Accelerator) -> None:
    """Give DeepSpeed the batch sizes, which it otherwise reads from data loaders."""
    cli.check(
        config.save_every == 0 and not config.resume,
        f"--save_every {config.save_every}: DeepSpeed divides the optimiser's state among the processes and "
        "cannot be resumed exactly; give --save_every 0 without --resume",
    )
    cli.check(
        config.ema_decay == 0,
        f"--ema_decay {config.ema_decay:g}: DeepSpeed keeps the float32 weights to itself and shows rounded "
        "ones, whose average would not change; give 0",
    )
    accelerator.state.deepspeed_plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": config.batch_size // accelerator.num_processes,
        "gradient_accumulation_steps": config.accumulation,
    }
