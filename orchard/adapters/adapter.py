"""The adapter's file: what stock diffusers reads, plus a record of where it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchard import cards
from orchard.adapters import dialects, embeddings, layers, lycoris, merged, peft_state, scaling
from orchard.adapters.provenance import HEADER, INVERSION, NAME, Provenance, of_folder, of_header
from orchard.adapters.scaling import Scaling
from orchard.adapters.tensor_roles import Method, methods_of
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.errors import UserError
from orchard.files import checked_safetensors
from orchard.files.atomic import file_hash, whole_file

if TYPE_CHECKING:
    from torch import Tensor

DIFFUSERS_HEADER = "lora_adapter_metadata"
PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA file that passed the checks which need no model."""

    path: Path
    digest: str
    provenance: Provenance | None
    """None for a file of another tool."""
    cross_attention_dim: int | None
    made_for: str | None
    """The family it seems made for, by names and widths; None when nothing tells it."""
    dialect: str
    """The tool whose names they have, in words."""
    methods: tuple[Method, ...]
    """What its layers are, usually one; none where it has words alone."""
    scale: float | None
    """Alpha / rank, what the product of its matrices is multiplied by; None when layers differ in it."""
    scalings: dict[str, Scaling]
    """What its peft configs say of the scale; empty for a file with alphas, or with none of both."""
    vectors: dict[str, Path] = field(default_factory=dict)
    """The files with the vectors of its words, by word."""


def save(
    path: Path,
    denoiser: Any,
    provenance: Provenance,
    *,
    prefix: str = "unet",
    text_encoders: Mapping[str, Any] = {},
    dialect: Literal["diffusers", "kohya", "merged"] = "diffusers",
    bundled: Mapping[str, Tensor] = {},
) -> None:
    """Write the adapter of peft-injected models under ``path``, whole or not at all.

    ``prefix`` is the denoiser's place in its pipeline (``unet`` or ``transformer``), ``text_encoders`` maps
    such places to further models. Stock diffusers reads both dialects, except from kohya's: transformers,
    DoRA, and text encoders whose ``out_proj`` has no LoRA. LoHa and LoKr it does not read; they are always
    written in kohya's. ``merged`` is the plain LoRA of `orchard.adapters.merged` in kohya's. ``bundled`` are
    vectors of words, which kohya's may have beside the layers.
    """
    from safetensors.torch import save_file

    models = {prefix: denoiser, **text_encoders}
    tensors, scales = peft_state.tensors(models), peft_state.scales(models)
    assert all(math.isfinite(value.sum().item()) for value in tensors.values()), "weights are not finite"
    metadata = {"format": "pt", HEADER: json.dumps(asdict(provenance), sort_keys=True)}
    if dialect == "merged":
        tensors, scales, said = merged.lora(models)
        metadata |= said
    if dialect != "diffusers" or set(methods_of(tensors)) & set(lycoris.METHODS):
        spelled = spelling(models)
        tensors = dialects.to_kohya(tensors, scales, spelled)
        metadata |= dialects.kohya_header(tensors, spelled)
    else:
        # Stock diffusers refuses a file with both alphas and this header.
        metadata[DIFFUSERS_HEADER] = json.dumps(peft_state.configs(models), sort_keys=True)
        tensors = dialects.for_stock(tensors)
    with whole_file(path) as aside:
        save_file({**tensors, **bundled}, aside, metadata=metadata)


def shareable(path: Path, folder: Path) -> Path:
    """The file at ``path``, or where its header names places of this machine a copy without in ``folder``.

    Raises:
        UserError: as for `read`.
    """
    from safetensors.torch import save_file

    provenance = read(path).provenance
    assert provenance, path
    shared = public(provenance)
    if shared == provenance:
        return path
    with checked_safetensors.opened(path) as file:
        header = {**file.metadata(), HEADER: json.dumps(asdict(shared), sort_keys=True)}
    copy = folder / path.name
    save_file(checked_safetensors.load(path), copy, metadata=header)
    return copy


def public(provenance: Provenance) -> Provenance:
    """The same without places of this machine."""
    base = bases.public_name(provenance.base, provenance.base_digest)
    return replace(provenance, base=base, data=cards.public(provenance.data))


def spelling(models: Mapping[str, Any]) -> dialects.Kohya:
    """How kohya's tools spell the modules of these models, by their places in a pipeline."""
    if "transformer" in models:
        return dialects.Kohya(two_encoders=True)
    unet = models["unet"]
    if unet.config.addition_embed_type == "text_time":
        blocks = layers.per_block(unet)
        return dialects.Kohya(two_encoders=True, original_layers=blocks, version="sdxl_base_v1-0")
    return dialects.Kohya(version="sd_v2" if unet.config.cross_attention_dim == 1024 else "sd_v1")


def find(name: str, folder: Path = Path("adapters")) -> Path:
    """A LoRA file by path, or by bare name here and then in ``adapters/``; or a folder: peft's, or one of a
    pipeline that finetune has trained.
    """
    choices = [Path(name).expanduser()]
    if len(choices[0].parts) == 1:
        choices.append(folder / name)
    for path in choices:
        if path.is_file() or (path / NAME).is_file():
            return path
        if (path / PEFT_WEIGHTS).is_file():
            return path / PEFT_WEIGHTS
    outer = next((path for path in choices if path.is_dir()), None)
    if outer is not None:
        inside = sorted(file.parent.name for file in outer.glob(f"*/{NAME}"))
        hint = f"give one in it, such as {outer / inside[0]}" if inside else "a pipeline is a --base"
        raise UserError(f"--lora {name}: a folder without {NAME}, so finetune did not write it; {hint}")
    tried = " nor ".join(str(path) for path in choices)
    here = sorted(path.name for path in folder.glob("*.safetensors"))
    hint = f"there is {', '.join(here)}" if here else "finetune/train_lora.py writes some"
    raise UserError(f"--lora {name}: no file {tried}; {hint}")


def begun(folder: Path) -> bool:
    """Whether finetune left something in ``folder`` to go on from: an adapter, or a checkpoint of one."""
    return any(any(folder.glob(one)) for one in ("*.safetensors", f"*/{NAME}", "checkpoints/*/step-*"))


def written(folder: Path, name: str) -> Path:
    """What finetune has written of this name: a file, or the folder of a pipeline."""
    return folder / name if (folder / name / NAME).is_file() else folder / f"{name}.safetensors"


def origin(path: Path) -> Provenance | None:
    """What finetune says of the adapter or pipeline that it wrote to ``path``; raises as `read`."""
    return read(path).provenance if path.is_file() else of_folder(path)


def read(path: Path) -> Adapter:
    """Read header, keys, shapes and alphas of a LoRA file of any dialect; no weights, no model.

    Raises:
        UserError: not a safetensors file, no LoRA tensors in it, a header that cannot be read or of a newer
            schema, or one tensor under two names.
    """
    try:
        with checked_safetensors.opened(path) as file:
            header = file.metadata() or {}
            bundle = [key for key in file.keys() if embeddings.is_bundled(key)]  # noqa: SIM118
            keys = [key for key in file.keys() if key not in bundle]  # noqa: SIM118
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
            alphas = {key: file.get_tensor(key) for key in keys if dialects.is_alpha(key)}
    except ValueError as error:
        raise UserError(f"--lora {path}: not a safetensors file ({error})") from None
    provenance = of_header(path, header)
    vectors = _vectors(path, provenance, bundle)
    if provenance and provenance.method == INVERSION:
        return _of_words(path, provenance, vectors)
    if other := dialects.foreign(keys):
        raise UserError(f"--lora {path}: holds {other}")
    learned = [key.lower() for key in shapes if key not in alphas]
    if not any(part in key for key in learned for part in ("lora", "hada_", "lokr_")):
        raise UserError(f"--lora {path}: none of its {len(shapes)} tensors is a LoRA's")
    try:
        named = dialects.rename(shapes)
        scalings = scaling.of_file(path, header.get(DIFFUSERS_HEADER), keys)
        scales = set(scaling.scales(named, dialects.rename(alphas), scalings).values())
    except ValueError as error:
        raise UserError(f"--lora {path}: {error}") from None
    return Adapter(
        path=path,
        digest=file_hash(path),
        provenance=provenance,
        cross_attention_dim=layers.text_width(named),
        made_for=layers.family(named),
        dialect=dialects.dialect_of(keys),
        methods=methods_of(named),
        scale=scales.pop() if len(scales) == 1 else None,
        scalings=scalings,
        vectors=vectors,
    )


def _of_words(path: Path, provenance: Provenance, vectors: dict[str, Path]) -> Adapter:
    """A file of textual inversion, which has no layers."""
    return Adapter(
        path=path,
        digest=file_hash(path),
        provenance=provenance,
        cross_attention_dim=None,
        made_for=None,
        dialect="textual inversion",
        methods=(),
        scale=None,
        scalings={},
        vectors=vectors,
    )


def _vectors(path: Path, provenance: Provenance | None, bundle: Sequence[str]) -> dict[str, Path]:
    """The files of an adapter's words; ``bundle`` are keys of vectors that its own file holds.

    Raises:
        UserError: a file is not the one it was trained with, or the bundle is another tool's.
    """
    if bundle and not (provenance and provenance.embeddings):
        raise UserError(
            f"--lora {path}: holds WebUI's bundled embeddings ({bundle[0][:60]}), which are read of this "
            "toolkit's files alone; save the LoRA without them"
        )
    found = {}
    for label, one in provenance.embeddings.items() if provenance else ():
        file = embeddings.path_of(path, label) if one["sha256"] else path
        if one["sha256"] and not (file.is_file() and file_hash(file) == one["sha256"]):
            raise UserError(
                f"--lora {path}: its prompts say {one['word']}, whose vectors are not in {file}; put the "
                "file there that it was trained with"
            )
        found[one["word"]] = file
    return found


def require_fit(adapter: Adapter, base: Base) -> None:
    """Raise `UserError` when the adapter was made for another base: family, width, or changed weights."""
    width = adapter.cross_attention_dim
    if width is not None and width != base.cross_attention_dim:
        raise UserError(
            f"--lora {adapter.path.name}: made for {made_for(adapter)}, but --base {base.name} is "
            f"{layers.family_of_width(base.cross_attention_dim)}; pass the base it was made for"
        )
    if adapter.provenance and adapter.provenance.family != base.family:
        raise UserError(
            f"--lora {adapter.path.name}: made for family {adapter.provenance.family}, "
            f"but --base {base.name} is {base.family}; pass the base it was made for"
        )

    provenance = adapter.provenance
    if provenance and provenance.base == base.name and provenance.base_digest != base.digest:
        raise UserError(
            f"--lora {adapter.path.name}: trained on a {base.name} with other weights "
            f"({provenance.base_digest[:12]}, now {base.digest[:12]}); train it again"
        )


def require_finite(adapter: Adapter) -> None:
    """Raise `UserError` when a tensor of the file holds NaN or infinity."""
    for word, path in adapter.vectors.items():
        embeddings.read(path, word)
    tensors = weights_of(adapter)
    bad = [key for key, value in tensors.items() if not value.float().isfinite().all()]
    if bad:
        raise UserError(f"--lora {adapter.path}: {len(bad)} of {len(tensors)} tensors hold NaN or infinity")


def weights_of(adapter: Adapter) -> dict[str, Tensor]:
    """The tensors of its layers as the file names them."""
    try:
        tensors = checked_safetensors.load(adapter.path)
    except ValueError as error:
        raise UserError(f"--lora {adapter.path}: not a LoRA's tensors ({error})") from None
    return {key: value for key, value in tensors.items() if not embeddings.is_bundled(key)}


def made_for(adapter: Adapter) -> str:
    """The family and, where the file says so, the base, for a message."""
    family = adapter.made_for or "an unknown family"
    return f"{family}, base {adapter.provenance.base}" if adapter.provenance else family


def is_lycoris(adapter: Adapter) -> bool:
    """Whether it is a LoHa or LoKr, which stock pipelines do not load."""
    return bool(set(adapter.methods) & set(lycoris.METHODS))
