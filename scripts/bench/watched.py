"""``python scripts/bench/watched.py FILE MODULE …``: run a module, and write what it took to a file.

Seconds, and the most bytes of a GPU's memory that this process held at once; null without a GPU.
"""

import json
import runpy
import sys
import time
from pathlib import Path

import torch


def main(file: Path, words: list[str]) -> None:
    """Run it as ``python -m`` does, and end with its exit code."""
    sys.argv = words
    started = time.perf_counter()
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        file.write_text(json.dumps({"seconds": time.perf_counter() - started, "peak": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
