"""The stock pipeline as the options want it: checker, image guidance, memory savers, compiled or not."""

from typing import Any

import torch

from generate.config import Generate
from generate.sampling import loras
from generate.sampling.loras import Blend
from orchard import devices
from orchard.bases import bases, safety_checker
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError


class Loader:
    """Gives the pipeline of a base with some adapters in it; bases that stay the same are loaded once."""

    def __init__(self, config: Generate, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.dtype, self.device = config, dtype, device
        self.base: Base | None = None
        self.pipe: Pipeline | None = None
        self.scheduler: Any = None

    def __call__(self, base: Base, blend: Blend) -> Pipeline:
        """The pipeline, ready to sample."""
        # A fused LoRA cannot be taken out again to the bit, so a compiled base serves one blend alone.
        if self.pipe is None or base != self.base or self.config.compile:
            self.pipe = None  # gone before the next one comes, or both would need room
            self.pipe, self.base = _load(self.config, base, self.dtype, self.device), base
            self.scheduler = self.pipe.scheduler
        self.pipe.scheduler = self.scheduler
        loras.attach(self.pipe, blend)
        if self.config.compile:
            _compile(self.pipe, blend)
        return self.pipe


def require_device(config: Generate, device: torch.device) -> None:
    """Raise `UserError` when the device cannot do what the options ask for."""
    if config.offload != "none" and device.type == "cpu":
        raise UserError(
            f"--offload {config.offload}: takes weights off a GPU, and there is none; leave it out"
        )
    if config.compile and config.offload != "none":
        raise UserError("--compile: does not go with --offload, which moves the weights; give one of them")


def environment(config: Generate, device: torch.device) -> dict[str, str]:
    """What changes pixels by rounding alone; the shards note it, and a run may go on with another."""
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    savers = ("batch_size", "low_memory", "offload")
    return {"device": f"{device.type}{name}", **{saver: str(getattr(config, saver)) for saver in savers}}


def depth(config: Generate) -> int:
    """How many batches may be denoised ahead of the decoder.

    None where both would move the same weights: with offloading, and where guiding images are encoded.
    """
    return 0 if config.offload != "none" or config.image_guidance or config.repaint else 1


def _load(config: Generate, base: Base, dtype: torch.dtype, device: torch.device) -> Pipeline:
    pipe = bases.load(base, dtype, device if config.offload == "none" else torch.device("cpu"))
    if config.safety_checker:
        safety_checker.add(pipe, base)
    if config.image_guidance or config.repaint:
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

        kind = AutoPipelineForInpainting if config.repaint else AutoPipelineForImage2Image
        pipe = kind.from_pipe(pipe)
        pipe.set_progress_bar_config(disable=True)
    if config.low_memory:
        pipe.enable_attention_slicing()
        pipe.vae.enable_slicing()
        pipe.vae.enable_tiling()
    if config.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif config.offload == "layers":
        pipe.enable_sequential_cpu_offload(device=device)
    return pipe


def _compile(pipe: Pipeline, blend: Blend) -> None:
    """Fuse the adapters into the base's weights, then compile the denoiser."""
    if any(one.adapter.methods for one in blend.all):
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    devices.require_compiler()
    (pipe.transformer if hasattr(pipe, "transformer") else pipe.unet).compile()
