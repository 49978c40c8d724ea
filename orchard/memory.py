"""How much memory there is left: of the machine, of the container that it may be, of a device."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
GROUPS = {
    "": ("", "memory.max", "memory.current", ""),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
"""Of control groups of version 2 and of version 1: folder, what they may take and have
taken, and how the names in their `memory.stat` begin that stand for groups inside, too."""
CACHE = ("inactive_file", "active_file")
"""What `memory.stat` calls pages of files that a group gives up when memory is wanted."""


def free() -> int:
    """Bytes that this process may take: its part of what is left to all processes of a launch here."""
    return min([_of_machine(), *_of_groups()]) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_on(device: "torch.device") -> int:
    """Bytes that are left on a device; of one that shares the machine's memory, as `free`."""
    import torch

    asked = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    if asked is None:
        return free()
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return asked(device)[0] + (cached if device.type == "cuda" else 0)


def _of_machine() -> int:
    import psutil

    return psutil.virtual_memory().available


def _of_groups() -> Iterator[int]:
    """Of each control group around this process that has a limit."""
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else []:
        _, controllers, own = line.split(":", 2)
        for controller in GROUPS.keys() & set(controllers.split(",")):
            place, *names = GROUPS[controller]
            root = CGROUPS / place
            for folder in (root / own.strip("/"), *(root / own.strip("/")).parents):
                if folder.is_relative_to(root):
                    yield from _of_group(folder, *names)


def _of_group(folder: Path, most: str, taken: str, prefix: str) -> Iterator[int]:
    limit = folder / most
    if limit.is_file() and (may := limit.read_text().strip()) != "max":
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used = int((folder / taken).read_text()) - sum(int(stat.get(prefix + name, 0)) for name in CACHE)
        yield max(int(may) - used, 0)
