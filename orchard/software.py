"""Which software a run is made with: versions of the libraries, and the commit of this checkout."""

import functools
import importlib.metadata
import subprocess
from pathlib import Path

import orchard

LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "torchvision",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Versions of this toolkit and of the libraries whose numbers could matter."""
    found = {"orchard": orchard.__version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the checkout this code runs from, ``+`` appended when it has changes.

    Looked up once: what is committed later is not what runs.
    """
    here = Path(orchard.__file__).parent
    try:
        # Installed below somebody else's repository, the files are there but not tracked by it.
        _git(here, "ls-files", "--error-unmatch", "__init__.py")
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
