"""`--lora` and `--lcm`: files or Hub ids with a weight each, and the sets of them that sample together."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from generate.config import Generate
from orchard import hub
from orchard.adapters import adapter, attaching, embeddings, provenance
from orchard.adapters.adapter import Adapter
from orchard.adapters.provenance import Provenance
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline
from orchard.cli import cli
from orchard.errors import UserError

HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<file>.+))?")
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """An adapter and what its part is multiplied by, beyond its own alpha / rank."""

    adapter: Adapter
    weight: float


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The adapters that are in the base at once; none of them is the base as it is."""

    parts: tuple[Weighted, ...] = ()
    lcm: Weighted | None = None
    base: Base | None = None
    """The base where finetune has trained all of its weights: of ``--lora`` or ``--base``."""

    @property
    def all(self) -> tuple[Weighted, ...]:
        """The parts, and the LCM-LoRA if there is one."""
        return (*self.parts, self.lcm) if self.lcm else self.parts

    @property
    def name(self) -> str:
        """How a plan calls it."""
        words = [
            one.adapter.path.name + ("" if one.weight == 1 else f" x {one.weight:g}") for one in self.all
        ]
        return " + ".join(words) or ("none (tuned base)" if self.base else "none (untuned base)")

    @property
    def provenances(self) -> list[Provenance | None]:
        """Of the parts, then of the base if finetune trained it; None for one that does not say."""
        found = [one.adapter.provenance for one in self.parts]
        return [*found, provenance.of_folder(self.base.folder)] if self.base else found

    def word(self, label: str) -> str:
        """What stands for a class in prompts."""
        known = (one.word(label) for one in self.provenances if one and label in one.embeddings)
        return next(known, label)

    @property
    def words(self) -> dict[str, int]:
        """The words that the parts have learned, and the number of vectors of each."""
        paths = {word: path for one in self.parts for word, path in one.adapter.vectors.items()}
        return {word: len(next(iter(embeddings.read(path, word).values()))) for word, path in paths.items()}

    @property
    def scale(self) -> float | None:
        """Alpha / rank of the one adapter; None when there are several, or its layers differ in it."""
        return self.parts[0].adapter.scale if len(self.parts) == 1 else None

    @property
    def trained_on(self) -> list[str] | None:
        """Hashes of the images that the parts have seen; None when one does not say, or may not.

        An LCM-LoRA makes the base faster and counts as a part of it.
        """
        seen: set[str] = set()
        for one in self.provenances:
            if one is None or one.ledger is None:
                return None
            seen.update(one.ledger)
        return sorted(seen)

    def arguments(self) -> dict[str, Any]:
        """What decides the pixels; weights and LCM-LoRA are named where they are not the usual."""
        found: dict[str, Any] = {
            "lora": "+".join(one.adapter.digest for one in self.parts),
            "lora_scale": self.scale,
        }
        if any(one.weight != 1 for one in self.parts):
            found["lora_weights"] = [one.weight for one in self.parts]
        if self.lcm:
            found |= {"lcm": self.lcm.adapter.digest, "lcm_weight": self.lcm.weight}
        promised = [one.adapter.provenance and one.adapter.provenance.privacy for one in self.parts]
        if promised and all(promised):
            found["privacy"] = promised
        return found


def blends(config: Generate) -> list[Blend]:
    """One blend for each of ``--lora``, or one of all with ``--fuse``; without any the untuned base.

    Raises:
        UserError: a file that is not there, is no LoRA, or holds NaN.
    """
    lcm = _read("--lcm", config.lcm) if config.lcm else None
    base = _tuned(config.base) if config.base else None
    found = [_blend(config, spec, lcm, base) for spec in config.lora] or [Blend(lcm=lcm, base=base)]
    if config.fuse:
        for spec, one in zip(config.lora, found, strict=True):
            cli.check(bool(one.parts), f"--fuse: --lora {spec} is a whole pipeline; sample it by itself")
        found = [Blend(parts=tuple(one.parts[0] for one in found), lcm=lcm, base=base)]
    for blend in found:
        _require_loadable(blend, config)
    return found


def _blend(config: Generate, spec: str, lcm: Weighted | None, base: Base | None) -> Blend:
    """One of ``--lora``: an adapter in its base, or the folder of a pipeline that finetune has trained."""
    folder = _local(spec)
    if folder is None or not folder.is_dir():
        return Blend(parts=(_read("--lora", spec),), lcm=lcm, base=base)
    cli.check(not config.base, f"--lora {spec}: is a whole pipeline, so --base has no say; leave --base out")
    return Blend(lcm=lcm, base=bases.resolve(str(folder)))


def _local(spec: str) -> Path | None:
    """What finetune has written, on this machine, if it is that."""
    try:
        return adapter.find(spec)
    except UserError:
        return None


def _tuned(name: str) -> Base | None:
    """The base of this name if finetune has trained all of its weights."""
    base = bases.resolve(name, inpainting=True)
    return base if provenance.of_folder(base.folder) else None


def _require_loadable(blend: Blend, config: Generate) -> None:
    """Raise `UserError` where an adapter cannot be put into the base as the other options have it."""
    for one in blend.all:
        plain = len(blend.all) == 1 and one.weight == 1 and not config.compile
        if one.adapter.vectors and config.offload == "layers":
            raise UserError(
                f"--lora {one.adapter.path.name}: adds words to text encoders, whose layers --offload layers "
                "keeps away; give --offload model"
            )
        if not one.adapter.methods and one.weight != 1:
            raise UserError(
                f"--lora {one.adapter.path.name}:{one.weight:g}: its words have no weight; leave it out"
            )
        if adapter.is_lycoris(one.adapter) and not plain:
            raise UserError(
                f"--lora {one.adapter.path.name}: a {one.adapter.methods[0]} is sampled alone and at its own "
                "scale; leave out weights, --fuse, --lcm and --compile"
            )
        starts = [found.taken_out for found in one.adapter.scalings.values() if found.taken_out]
        if starts and config.offload == "layers":
            raise UserError(
                f"--lora {one.adapter.path.name}: starts by {starts[0]} from the base's weights, which "
                "--offload layers keeps away; give --offload model"
            )


def require_fit(blend: Blend, base: Base) -> None:
    """Raise `UserError` when an adapter was made for another base or finds no place in this one."""
    for one in blend.all:
        adapter.require_fit(one.adapter, base)
        attaching.require_matching_layers(one.adapter, base)


def attach(pipe: Pipeline, blend: Blend) -> None:
    """Put the adapters into a stock pipeline, instead of those that are there."""
    attaching.learn_words(pipe, [one.adapter for one in blend.all])
    pipe.unload_lora_weights()
    layered = [one for one in blend.all if one.adapter.methods]
    names = [f"part{place}" for place, _ in enumerate(layered)]
    for name, one in zip(names, layered, strict=True):
        attaching.add(pipe, one.adapter, name)
    weights = [one.weight for one in layered]
    if len(weights) > 1 or weights not in ([], [1.0]):
        pipe.set_adapters(names, weights)


def _read(flag: str, spec: str) -> Weighted:
    try:
        name, weight = weighted(spec)
        path = _find(name)
        cli.check(path.is_file(), f"--lora {spec}: is a whole pipeline, which has no weight; name it alone")
        found = adapter.read(path)
        adapter.require_finite(found)
    except UserError as error:
        raise UserError(str(error).replace("--lora", flag, 1)) from None
    return Weighted(adapter=found, weight=weight)


def weighted(spec: str) -> tuple[str, float]:
    """``("a.safetensors", 0.7)`` of ``a.safetensors:0.7``; without a number the weight is 1."""
    name, _, number = spec.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        return spec, 1.0
    if not name or Path(spec).is_file():
        return spec, 1.0
    if not math.isfinite(weight):
        raise UserError(f"--lora {spec}: {number} is no weight; give a number, as in {name}:0.7")
    return name, weight


def _find(name: str) -> Path:
    """The file, on this machine or fetched from the Hub."""
    on_hub = HUB_ID.fullmatch(name)
    local = Path(name).expanduser()
    is_path = local.exists() or local.parent.is_dir() or (name.endswith(SUFFIX) and ":" not in name)
    if on_hub is None or is_path:
        return adapter.find(name)
    path = hub.weights(on_hub["repo"], on_hub["file"])
    said = provenance.of_path(path)
    for label, one in said.embeddings.items() if said else ():
        if one["sha256"]:
            file = PurePosixPath(on_hub["file"] or path.name)
            hub.weights(on_hub["repo"], str(embeddings.path_of(file, label)))
    return path


def labels_of(blend: Blend) -> Sequence[str]:
    """The classes that the parts were trained on, or else the base, each once."""
    parts = [one.adapter.provenance for one in blend.parts if one.adapter.provenance]
    told = parts or blend.provenances
    return list(dict.fromkeys(label for one in told if one for label in one.classes))


def clip_skip(blend: Blend) -> int:
    """The layer of CLIP that the parts were trained with, or else a tuned base; 0 is what is usual.

    Raises:
        UserError: they were trained with several.
    """
    parts = [one.adapter.provenance for one in blend.parts if one.adapter.provenance]
    found = {one.options.get("clip_skip", 0) for one in parts or blend.provenances if one}
    if len(found) > 1 or not all(isinstance(layer, int) for layer in found):
        layers = ", ".join(sorted(map(str, found)))
        raise UserError(f"--lora {blend.name}: trained with --clip_skip {layers}; sample them one by one")
    return found.pop() if found else 0
