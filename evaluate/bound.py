"""``python -m evaluate.bound PID MODULE …``: a command that stops when process PID, its parent, ends."""

import runpy
import sys

from orchard import stopping

if __name__ == "__main__":
    try:
        stopping.end_with(int(sys.argv[1]))
    except stopping.Terminated as stop:
        raise SystemExit(stopping.code(stop)) from None
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
