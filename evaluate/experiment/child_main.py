"""``python -m evaluate.experiment.child_main PID MODULE …``: a command that ends with its parent PID."""

import runpy
import sys

from orchard.cli import signals

if __name__ == "__main__":
    try:
        signals.end_with(int(sys.argv[1]))
    except signals.Terminated as stop:
        raise SystemExit(signals.code(stop)) from None
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
