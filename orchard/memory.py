"""How much memory there is left: of the machine, of the container that it may be, of a device."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUPS, MEMBERSHIP, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")
CACHE = "inactive_file"
"""What `memory.stat` of a control group calls pages of files that it gives up when memory is wanted."""


def free() -> int:
    """Bytes that this process may take: its part of what is left to all processes of a launch here."""
    return min([_of_machine(), *_of_groups()]) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_on(device: "torch.device") -> int:
    """Bytes that are left on a device; of one that shares the machine's memory, as `free`."""
    import torch

    asked = getattr(getattr(torch, device.type, None), "mem_get_info", None)
    return asked(device)[0] if asked else free()


def _of_machine() -> int:
    if not MEMINFO.is_file():  # nothing but Linux tells what it would free for us
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
    return int(found["MemAvailable"].split()[0]) * 1024


def _of_groups() -> Iterator[int]:
    """Of each control group (version 2) around this process that has a limit."""
    lines = MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    for folder in (CGROUPS / own, *(CGROUPS / own).parents):
        if not folder.is_relative_to(CGROUPS):
            return
        limit = folder / "memory.max"
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            taken = int((folder / "memory.current").read_text()) - int(stat[CACHE])
            yield max(int(most) - taken, 0)
