"""What a run needs around it: device and precision, files that appear whole."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchard import lock, storage
from orchard.errors import UserError, WriteError

LONGEST_NAME = 160
"""Bytes of a class in a file's name, of the 255 that file systems take."""
VOLTA = (7, 0)
"""Compute capability of the first cards with tensor cores."""
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name to write to beside ``path``; it becomes ``path`` only once it is on disk.

    ``shared``: other processes may be writing the same file; they take turns.

    Raises:
        WriteError: it cannot be written; nothing is left beside ``path``.
    """
    if not storage.is_local(path):
        with written(path), storage.uploaded(path) as aside:
            yield aside
        return
    # Always the same name, so that the next run finds what a killed one has left, and writes over it.
    aside = path.with_name(f"{path.name}.part")
    with written(path):
        aside.parent.mkdir(parents=True, exist_ok=True)
        with lock.turn(aside.parent) if shared else nullcontext():
            try:
                yield aside
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
                # Some writers make private files; a dataset is there to be read by others.
                aside.chmod(0o666 & ~_umask())
                aside.replace(path)
            except BaseException:  # and only then: once renamed, the name may be another process's again
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
                raise


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn what a failed write to ``path`` raises into a `WriteError` that names it."""
    try:
        yield
    except Exception as error:
        from safetensors import SafetensorError  # which is what its writer raises on a full disk

        if not isinstance(error, OSError | SafetensorError):
            raise
        reason = getattr(error, "strerror", None) or str(error).rpartition("I/O error: ")[2]
        raise WriteError(
            f"{path}: cannot be written ({reason}); make room there, or name another folder"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON under ``path``, whole or not at all; NaN is refused."""
    with whole_file(path) as aside:
        aside.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def file_name(label: str) -> str:
    """A class name as a file name: anything but letters, digits, dot, dash and underscore becomes ``_``.

    It begins with none of dot and dash, which would hide it, or make an option of it on a command line.
    What is longer than file systems take beside our own parts is cut off, and ends in its hash.
    """
    name = re.sub(r"[^\w.-]", "_", label).lstrip(".-") or "_"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    ending = f"-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return name.encode()[: LONGEST_NAME - len(ending)].decode(errors="ignore") + ending


def require_distinct_files(labels: Sequence[str]) -> None:
    """Raise `UserError` when two class names give one file name, on any file system."""
    names: dict[str, str] = {}
    for label in labels:
        other = names.setdefault(file_name(label).casefold(), label)
        if other != label:
            raise UserError(f"classes {other!r} and {label!r} give the same file name; rename one")


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], *, word: str = "asked") -> str:
    """``steps 400 (asked: 300), …``: the keys whose values are not the same; empty when all are."""
    return ", ".join(
        f"{key} {there.get(key)} ({word}: {asked.get(key)})"
        for key in sorted(there.keys() | asked.keys())
        if there.get(key) != asked.get(key)
    )


def writable(folder: Path, option: str = "--output") -> None:
    """Make ``folder``; raise `WriteError` naming ``option`` when nothing can be written there."""
    if not storage.is_local(folder):
        storage.require_writable(folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # without a name, so that nothing stays of a killed run
            pass
    except OSError as error:
        raise WriteError(
            f"{option} {folder}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def processes() -> Any:
    """This process among its fellows, as an `accelerate.PartialState`.

    Without an accelerator accelerate has to be told so: else processes on a CPU do not find each other.
    """
    from accelerate import PartialState

    # The processes of generate meet only at the end, when each has done its shards.
    return PartialState(cpu=not _has_accelerator(), timeout=timedelta(days=7))


def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


def torch_dtype(precision: str, device: Any) -> Any:
    """The torch dtype that ``--precision`` stands for on ``device`` (a `torch.device`).

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


def precisions(device: Any) -> tuple[str, ...]:
    """What ``--precision`` may be on ``device`` (a `torch.device`)."""
    offered = {"fp32": True, "bf16": _bf16(device), "fp16": device.type != "cpu"}
    return tuple(name for name, able in offered.items() if able)


def _bf16(device: Any) -> bool:
    """Whether bfloat16 runs in the device's own hardware: emulated, it is slower than float32."""
    import torch
    from accelerate import utils

    if device.type == "cpu":
        return _cpu_bf16()
    if device.type in ("cuda", "xpu"):
        return bool(getattr(torch, device.type).is_bf16_supported(including_emulation=False))
    return bool(utils.is_bf16_available())


def _quick_fp16(device: Any) -> bool:
    """Whether float16 is quicker than float32: NVIDIA's older cards have no units for it."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= VOLTA


def _dtypes() -> dict[str, Any]:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_name(dtype: Any) -> str:
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
