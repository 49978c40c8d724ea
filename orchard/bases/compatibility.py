"""What the stock pipelines ask of a base, told from its configs alone: what would fail later is refused."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard.bases import components
from orchard.bases.families import FAMILIES, FLOW_MATCHING, T5
from orchard.errors import UserError

Config = Mapping[str, Any]
TEXT_TO_IMAGE = "give a text-to-image model"
TIME_SIZES = 6
"""Numbers of SDXL's size conditions."""


def require(folder: Path, family: str, name: str, index: Config, *, inpainting: bool = False) -> None:
    """Raise `UserError` unless a pipeline of ``family`` can be made, trained and sampled from its configs.

    ``inpainting`` allows denoisers that are for inpainting alone.
    """
    try:
        _require_classes(family, index)
        read = {part: _config(folder, part, name) for part in FAMILIES[family].classes if _there(index, part)}
        _require_scheduler(family, read["scheduler"], index["scheduler"][1])
        _require_autoencoder(family, read["vae"])
        if family == "sana":
            _require_linear_transformer(read)
        elif family == "sd3":
            _require_transformer(read, inpainting)
        else:
            _require_unet(family, read, inpainting)
    except ValueError as error:
        raise UserError(f"--base {name}: {error}") from None
    except (TypeError, KeyError, OverflowError) as error:
        raise UserError(f"--base {name}: its configs have a missing or invalid value ({error!r})") from None


def _there(index: Config, part: str) -> bool:
    value = index.get(part)
    return isinstance(value, list) and len(value) == 2 and value[1] is not None


def _config(folder: Path, part: str, name: str) -> Config:
    """The config of a model or scheduler; of a tokenizer its settings, which old ones lack."""
    if part.startswith("tokenizer"):
        return {}
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    return components.config(folder / part / file, name)


def _require_classes(family: str, index: Config) -> None:
    layout = FAMILIES[family]
    for part, kinds in layout.classes.items():
        if not _there(index, part):
            if part in (T5, "tokenizer_3"):
                continue
            raise ValueError(f"its model_index.json names no {part}, which a {layout.pipeline} needs")
        kind = index[part][1]
        if kind not in kinds:
            known = sorted(kinds)
            raise ValueError(
                f"its {part} is {str(kind)[:60]}; supported "
                f"{'is' if len(known) == 1 else 'are'} {', '.join(known)}"
            )


def _require_scheduler(family: str, config: Config, kind: str) -> None:
    """Diffusion steps through betas at whole timesteps, the others through the sigmas of flow matching."""
    flow = kind in FLOW_MATCHING or bool(config.get("use_flow_sigmas"))
    if flow != FAMILIES[family].flow:
        wanted = "diffusion" if flow else "flow matching"
        raise ValueError(f"its scheduler, a {kind}, is not set for {wanted}, which its pipeline needs")
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError(
            f"its {kind} has timesteps of type {config['timestep_type']}; only discrete ones are known"
        )


def _require_autoencoder(family: str, config: Config) -> None:
    channels = latent_channels(config)
    pipeline = FAMILIES[family].pipeline
    if not 0 < config.get("scaling_factor", 1) < math.inf:
        raise ValueError(f"its autoencoder scales latents by {config['scaling_factor']}")
    given = {key: value for key in ("latents_mean", "latents_std") if (value := config.get(key)) is not None}
    # Those of the other pipelines do not read them, or not one alone, and would decode to other colours.
    if given and (family != "sdxl" or len(given) != 2):
        raise ValueError(f"its autoencoder has {' and '.join(given)}, which a {pipeline} leaves out")
    for key, values in given.items():
        if len(values) != channels or not all(math.isfinite(value) for value in values):
            raise ValueError(f"its autoencoder has {key} {str(values)[:60]} for {channels} channels")
    if any(value <= 0 for value in given.get("latents_std", ())):
        raise ValueError(f"its autoencoder has latents_std {given['latents_std']}; deviations are above 0")
    if config.get("shift_factor") and family != "sd3":
        raise ValueError(f"its autoencoder has a shift_factor, which a {pipeline} leaves out")


def _require_channels(what: str, denoiser: Config, vae: Config, default: int, inpainting: bool) -> None:
    """``default`` is also what the stock pipelines take of latents where a denoiser inpaints."""
    latents = latent_channels(vae)
    takes = denoiser.get("in_channels", default)
    gives = denoiser.get("out_channels", default)
    inpaints = takes == inpainting_channels(latents) and latents == default
    if takes != latents and not (inpainting and inpaints):
        raise ValueError(
            f"its {what} takes {takes} channels instead of {latents}, so it inpaints or edits; "
            f"{TEXT_TO_IMAGE}"
        )
    if gives != latents:
        raise ValueError(f"its {what} gives {gives} channels instead of {latents}; {TEXT_TO_IMAGE}")


def latent_channels(vae: Config) -> int:
    """Channels of an autoencoder's latents; those of Sana have 32 unless their config says otherwise."""
    return int(vae.get("latent_channels", 32 if "encoder_block_out_channels" in vae else 4))


def latent_factor(vae: Config) -> int:
    """Pixels along a side of an autoencoder's latent cell."""
    blocks = vae.get("encoder_block_out_channels") or vae["block_out_channels"]
    return 2 ** (len(blocks) - 1)


def inpainting_channels(latents: int) -> int:
    """What a denoiser for inpainting takes: latents, the mask, and the latents of what is kept."""
    return 2 * latents + 1


def _require_unet(family: str, read: Mapping[str, Config], inpainting: bool) -> None:
    unet = read["unet"]
    _require_channels("UNet", unet, read["vae"], 4, inpainting)
    widths = [_width(read[part]) for part in FAMILIES[family].text_encoders]
    if sum(widths) != unet["cross_attention_dim"]:
        raise ValueError(
            f"its UNet reads text of width {unet['cross_attention_dim']}, but its text encoders write "
            f"{' + '.join(map(str, widths))}"
        )
    sized = "text_time" if family == "sdxl" else None
    conditions = {"addition_embed_type": sized, "class_embed_type": None, "encoder_hid_dim_type": None}
    for key, wanted in conditions.items():
        if unet.get(key) != wanted:
            raise ValueError(
                f"its UNet has {key} {unet.get(key)}, a {FAMILIES[family].pipeline} gives {wanted}"
            )
    if sized:
        pooled = _projection(read["text_encoder_2"]) + TIME_SIZES * unet["addition_time_embed_dim"]
        _require_pooled("UNet", unet["projection_class_embeddings_input_dim"], pooled)


def _require_transformer(read: Mapping[str, Config], inpainting: bool) -> None:
    transformer = read["transformer"]
    _require_channels("transformer", transformer, read["vae"], 16, inpainting)
    clip = [read[part] for part in ("text_encoder", "text_encoder_2")]
    joint = transformer["joint_attention_dim"]
    if sum(map(_width, clip)) > joint:
        raise ValueError(f"its transformer reads text of width {joint}, less than its text encoders write")
    if T5 in read and read[T5].get("d_model", 512) != joint:
        raise ValueError(
            f"its transformer reads text of width {joint}, but its {T5} writes {read[T5]['d_model']}"
        )
    _require_pooled("transformer", transformer["pooled_projection_dim"], sum(map(_projection, clip)))


def _require_linear_transformer(read: Mapping[str, Config]) -> None:
    transformer, encoder = read["transformer"], read["text_encoder"]
    _require_channels("transformer", transformer, read["vae"], 32, inpainting=False)
    if transformer["caption_channels"] != encoder["hidden_size"]:
        raise ValueError(
            f"its transformer reads text of width {transformer['caption_channels']}, but its text_encoder "
            f"writes {encoder['hidden_size']}"
        )
    if transformer.get("guidance_embeds"):
        raise ValueError(f"its transformer takes guidance as a number; {TEXT_TO_IMAGE}")


def _require_pooled(what: str, reads: int, written: int) -> None:
    if reads != written:
        raise ValueError(
            f"its {what} reads {reads} pooled values, its text encoders and sizes make {written}"
        )


def _width(text_encoder: Config) -> int:
    """Of its states, as `CLIPTextConfig` has it by default."""
    return int(text_encoder.get("hidden_size", 512))


def _projection(text_encoder: Config) -> int:
    return int(text_encoder.get("projection_dim", 512))
