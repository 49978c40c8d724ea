"""Parts of a base, told from their files alone: what they are made from, how large they are."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.files import checked_json
from orchard.files.atomic import file_hash

USUAL_VARIANTS = ("fp16", "bf16")
"""Taken first where there are several variants and no plain weights."""
_WEIGHTS = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-(?P<count>\d{5}))?"
    r"\.safetensors"
)


def config(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the base ``name``; `UserError` when it cannot be read."""
    try:
        # Configs of schedulers may say -Infinity.
        return checked_json.table({}, checked_json.parse(checked_json.read(path), finite=False))
    except (OSError, ValueError) as error:
        raise UserError(f"--base {name}: {path.parent.name}/{path.name} cannot be read ({error})") from None


def weights(folder: Path, part: str) -> dict[str | None, list[Path]]:
    """Variant -> the files of a component's weights; None is what loads without naming one.

    Files under names that nothing loads, and sets of shards with a gap, are left out.
    """
    stem = "model" if part.startswith(("text_encoder", "safety_checker")) else "diffusion_pytorch_model"
    found: dict[str | None, list[Path]] = {}
    counts: dict[str | None, int] = {}
    for path in sorted((folder / part).glob("*.safetensors")):
        match = _WEIGHTS.fullmatch(path.name)
        if match and match["stem"] == stem:
            found.setdefault(match["variant"], []).append(path)
            counts[match["variant"]] = int(match["count"] or 1)
    return {variant: files for variant, files in found.items() if len(files) == counts[variant]}


def variant_of(folder: Path, parts: Sequence[str], name: str) -> str | None:
    """The variant to load the base ``name`` in: None unless a part has no plain weights.

    Raises:
        UserError: a part has no weights, or the parts have no variant in common.
    """
    there = {part: weights(folder, part) for part in parts}
    lacking = {part: found for part, found in there.items() if None not in found}
    if not lacking:
        return None
    for part, found in lacking.items():
        if not found:
            raise UserError(f"--base {name}: no safetensors weights in {part}/")
    shared = set.intersection(*(set(found) for found in lacking.values()))
    if not shared:
        kinds = ", ".join(f"{part}/ has {'/'.join(map(str, found))}" for part, found in lacking.items())
        raise UserError(f"--base {name}: its parts have no variant in common ({kinds}); give whole weights")
    return next((one for one in USUAL_VARIANTS if one in shared), min(map(str, shared)))


def weights_of(folder: Path, part: str, variant: str | None) -> list[Path]:
    """The files that a part is loaded from: those of the variant where it has them."""
    found = weights(folder, part)
    return found.get(variant) or found[None]


def weights_hash(path: Path) -> str:
    """The file's SHA-256; the Hub's cache names large files by it, which saves reading them."""
    real = path.resolve()
    is_hash = len(real.name) == 64 and all(c in "0123456789abcdef" for c in real.name)
    state = real.stat()
    return real.name if is_hash else _hash_of(real, state.st_size, state.st_mtime_ns)


@functools.cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    return file_hash(path)
