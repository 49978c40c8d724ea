"""``python -m evaluate.bound PID MODULE …``: a command that ends when process PID, its parent, ends."""

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
"""linux/prctl.h: the signal to get when the parent dies."""


def bind(parent: int) -> None:
    """Be killed when the parent process dies, however it dies; only Linux can do that."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died before it could be watched
        raise SystemExit(128 + signal.SIGKILL)


if __name__ == "__main__":
    bind(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
