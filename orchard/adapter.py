"""The LoRA file: what stock diffusers reads, plus a record of where it came from."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchard.bases import Base
from orchard.errors import UserError
from orchard.run import file_hash, whole_file

SCHEMA = 1
HEADER = "orchard"
DIFFUSERS_HEADER = "lora_adapter_metadata"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the header says: enough to make the adapter again and to see what it has seen."""

    base: str
    base_digest: str
    family: str
    resolution: int
    classes: list[str]
    """Classes it was trained on."""
    all_classes: list[str]
    """The whole class list of the real set."""
    prompt: str
    """Template with ``{label}`` in it."""
    rank: int
    alpha: float
    steps: int
    seed: int
    losses: dict[str, float]
    trained_on: list[str]
    """SHA-256 of every real image it was trained on."""
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    """Everything else that the weights depend on."""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA file that passed the checks which need no model."""

    path: Path
    digest: str
    provenance: Provenance | None
    """None for a file of another tool."""
    cross_attention_dim: int | None
    tensors: int
    """LoRA tensors in the file; alphas are not counted."""


def save(path: Path, unet: Any, provenance: Provenance) -> None:
    """Write the LoRA of a peft-injected ``unet`` under ``path``, whole or not at all."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    tensors = {f"unet.{key}": value.detach().float().cpu().contiguous() for key, value in layers.items()}
    assert all(math.isfinite(value.sum().item()) for value in tensors.values()), "weights are not finite"
    config = {f"unet.{key}": _plain(value) for key, value in unet.peft_config["default"].to_dict().items()}
    metadata = {
        "format": "pt",
        DIFFUSERS_HEADER: json.dumps(config, sort_keys=True),
        HEADER: json.dumps(asdict(provenance), sort_keys=True),
    }
    with whole_file(path) as aside:
        save_file(tensors, aside, metadata=metadata)


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | list | type(None)) else str(value)


def find(name: str, folder: Path = Path("adapters")) -> Path:
    """A LoRA file by path, or by bare name here and then in ``adapters/``."""
    choices = [Path(name).expanduser()]
    if len(choices[0].parts) == 1:
        choices.append(folder / name)
    for path in choices:
        if path.is_file():
            return path
    tried = " nor ".join(str(path) for path in choices)
    here = sorted(path.name for path in folder.glob("*.safetensors"))
    hint = f"there is {', '.join(here)}" if here else "finetune/train_lora.py writes some"
    raise UserError(f"--lora {name}: no file {tried}; {hint}")


def read(path: Path) -> Adapter:
    """Read header, keys and shapes of a LoRA file; no weights, no model.

    Raises:
        UserError: not a safetensors file, no LoRA tensors in it, or a header of a newer schema.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"--lora {path}: not a safetensors file ({error})") from None
    if not any("lora" in key.lower() for key in shapes):
        raise UserError(f"--lora {path}: none of its {len(shapes)} tensors is a LoRA's")
    return Adapter(
        path=path,
        digest=file_hash(path),
        provenance=_provenance(path, header.get(HEADER)),
        cross_attention_dim=_cross_attention_dim(shapes),
        tensors=sum(not key.endswith(".alpha") for key in shapes),
    )


def _provenance(path: Path, text: str | None) -> Provenance | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
        if value["schema"] > SCHEMA:
            raise UserError(f"--lora {path}: written by a newer version; update this toolkit")
        return Provenance(**value)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"--lora {path}: its `{HEADER}` header cannot be read ({error})") from None


def _cross_attention_dim(shapes: dict[str, tuple[int, ...]]) -> int | None:
    """Width of the text states the LoRA was made for, from a cross-attention key projection."""
    for key, shape in shapes.items():
        if "attn2" in key and "to_k" in key and ("lora_A" in key or "lora_down" in key or "lora.down" in key):
            return shape[1]
    return None


def require_fit(adapter: Adapter, base: Base) -> None:
    """Raise `UserError` when the adapter was made for another base: family, width, or changed weights."""
    made_for = adapter.provenance.base if adapter.provenance else None
    width = adapter.cross_attention_dim
    if width is not None and width != base.cross_attention_dim:
        raise UserError(
            f"--lora {adapter.path.name}: made for {made_for or _family(width)} (text width {width}), "
            f"but --base {base.name} is {_family(base.cross_attention_dim)} (text width "
            f"{base.cross_attention_dim}); pass the base it was made for"
        )
    if adapter.provenance and adapter.provenance.family != base.family:
        raise UserError(
            f"--lora {adapter.path.name}: made for family {adapter.provenance.family}, "
            f"but --base {base.name} is {base.family}; pass the base it was made for"
        )

    origin = adapter.provenance
    if origin and origin.base == base.name and origin.base_digest != base.digest:
        raise UserError(
            f"--lora {adapter.path.name}: trained on a {base.name} with other weights "
            f"({origin.base_digest[:12]}, now {base.digest[:12]}); train it again"
        )


def require_finite(adapter: Adapter) -> None:
    """Raise `UserError` when a tensor of the file holds NaN or infinity."""
    from safetensors.torch import load_file

    tensors = load_file(adapter.path)
    bad = [key for key, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise UserError(f"--lora {adapter.path}: {len(bad)} of {len(tensors)} tensors hold NaN or infinity")


def _family(width: int) -> str:
    return {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}.get(width, "another pipeline")


def attach(pipe: Any, adapter: Adapter) -> None:
    """Load the adapter into a stock pipeline.

    Raises:
        UserError: a tensor found no place in the pipeline, or one of another shape.
    """
    folder, name = str(adapter.path.parent), adapter.path.name
    try:
        pipe.load_lora_weights(folder, weight_name=name, adapter_name="default")
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()[:160]
        raise UserError(f"--lora {adapter.path}: does not fit {type(pipe).__name__} ({reason})") from None
    modules = (pipe.unet, pipe.text_encoder)
    names = [n for module in modules for n, _ in module.named_parameters()]
    matched = sum(".lora_" in n and ".default." in n for n in names)
    if matched != adapter.tensors:
        raise UserError(
            f"--lora {adapter.path}: {matched} of {adapter.tensors} LoRA tensors matched "
            f"{type(pipe).__name__}; it seems made for another pipeline"
        )
