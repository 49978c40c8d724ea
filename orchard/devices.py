"""Processes, devices and precision."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from orchard import heartbeat
from orchard.errors import UserError, differences, one_line

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator, PartialState

Value = TypeVar("Value")

VOLTA = (7, 0)
"""Compute capability of the first cards with tensor cores."""


BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def processes() -> "PartialState":
    """This process among its fellows.

    Without an accelerator accelerate has to be told so: else processes on a CPU do not find each other.

    Raises:
        UserError: the others did not come, or cannot be reached.
    """
    from accelerate import PartialState

    heartbeat.start()
    try:
        # The processes of generate meet only at the end, when each has done its shards.
        return PartialState(cpu=not _has_accelerator(), timeout=timedelta(days=7))
    except RuntimeError as error:
        if "connect" not in str(error) or heartbeat.explains(error):
            raise
        raise UserError(
            f"the processes of this run cannot reach each other ({one_line(error)}); name the network "
            "between their machines in GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME, and open their firewalls"
        ) from None


def on_one_machine(state: "PartialState | Accelerator") -> bool:
    """Whether all processes of the run are here, where a lock on a file holds for each."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == state.num_processes


def from_first(state: "PartialState | Accelerator", make: Callable[[], Value]) -> Value:
    """What ``make`` gives in the first process, or the `UserError` that it raises, in every process."""
    from accelerate.utils import broadcast_object_list

    if state.num_processes == 1:
        return make()
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = make()
        except UserError as error:
            found[1] = error
    value, refusal = broadcast_object_list(found)
    if refusal:
        raise refusal
    return value


def require_same(state: "PartialState | Accelerator", plan: Mapping[str, Any]) -> None:
    """Raise `UserError` in every process unless all have the plan of the first one: each reads options and
    files of its own machine.
    """
    from accelerate.utils import gather_object

    if state.num_processes == 1:
        return
    own = differences(plan, from_first(state, lambda: plan), word="process 0")
    found = gather_object([f"process {state.process_index} has {own}"] if own else [])
    if found:
        raise UserError(f"not all processes do the same: {found[0]}; give all the same options and files")


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def torch_dtype(precision: str, device: "torch.device") -> "torch.dtype":
    """The dtype that ``--precision`` stands for on ``device``.

    Raises:
        UserError: the device cannot compute in that precision.
    """
    able = precisions(device)
    if precision == "auto":
        quick = ("bf16", "fp16") if _quick_fp16(device) else ("bf16",)
        precision = next((name for name in quick if name in able), "fp32")
    if precision not in able:
        reason = f"{device.type} has no bfloat16" if precision == "bf16" else "only on a GPU"
        raise UserError(f"--precision {precision}: {reason}; use {' or '.join(reversed(able))}")
    return _dtypes()[precision]


def precisions(device: "torch.device") -> tuple[str, ...]:
    """What ``--precision`` may be on ``device``."""
    offered = {"fp32": True, "bf16": _bf16(device), "fp16": device.type != "cpu"}
    return tuple(name for name, able in offered.items() if able)


def _bf16(device: "torch.device") -> bool:
    """Whether bfloat16 runs in the device's own hardware: emulated, it is slower than float32."""
    import torch
    from accelerate import utils

    if device.type == "cpu":
        return _cpu_bf16()
    if device.type in ("cuda", "xpu"):
        return bool(getattr(torch, device.type).is_bf16_supported(including_emulation=False))
    return bool(utils.is_bf16_available())


def _quick_fp16(device: "torch.device") -> bool:
    """Whether float16 is quicker than float32: NVIDIA's older cards have no units for it."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= VOLTA


def _dtypes() -> "dict[str, torch.dtype]":
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_name(dtype: "torch.dtype") -> str:
    """The ``--precision`` that stands for a torch dtype."""
    return next(name for name, value in _dtypes().items() if value == dtype)


def _cpu_bf16() -> bool:
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name) is True for name in BF16_INSTRUCTIONS)


def quiet_libraries() -> None:
    """Keep library chatter out of the commands' output; their errors still come through."""
    import logging
    import warnings

    import datasets
    from diffusers.utils import logging as diffusers_logging
    from PIL import Image
    from transformers.utils import logging as transformers_logging

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    # They name no file; what matters of one is said when it is decoded.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\._dynamo")
    warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters, on purpose
    for library in (transformers_logging, diffusers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)


def require_compiler() -> None:
    """Raise `UserError` where torch finds no compiler to compile with."""
    import torch

    try:
        torch.compile(torch.sin)(torch.ones(1))
    except Exception as error:  # whatever the compiler behind torch raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"--compile: torch cannot compile on this machine ({reason}); leave it out") from None
