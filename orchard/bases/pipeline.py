"""What this toolkit uses of a pipeline, whichever of diffusers' classes it is."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Pipeline(Protocol):
    """A loaded base; its models are `Any`, since their configs have no types."""

    config: Any
    vae: Any
    scheduler: Any
    unet: Any
    """The denoiser, where it is one."""
    transformer: Any
    """The denoiser otherwise."""
    text_encoder: Any
    image_processor: Any
    vae_scale_factor: int

    @property
    def components(self) -> Mapping[str, Any]:
        """Every model, tokenizer and scheduler by name."""

    @property
    def device(self) -> "torch.device": ...
    @property
    def dtype(self) -> "torch.dtype": ...
    @property
    def _execution_device(self) -> "torch.device": ...

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Sample; the images are in ``images``."""

    def encode_prompt(self, *arguments: Any, **options: Any) -> Any:
        """Prompts -> their embeddings, as many tensors as the family has."""

    def run_safety_checker(self, *arguments: Any) -> Any: ...
    def register_modules(self, **modules: Any) -> None: ...
    def to(self, *arguments: Any) -> "Pipeline": ...
    def set_progress_bar_config(self, **options: Any) -> None: ...
    def load_lora_weights(self, *arguments: Any, **options: Any) -> None: ...
    def unload_lora_weights(self) -> None: ...
    def set_adapters(self, names: Sequence[str], weights: Sequence[float]) -> None: ...
    def maybe_convert_prompt(self, prompt: list[str], tokenizer: Any) -> list[str]: ...
    def save_pretrained(self, folder: Any, **options: Any) -> None: ...
    def fuse_lora(self) -> None: ...
    def enable_attention_slicing(self) -> None: ...
    def enable_model_cpu_offload(self, *, device: "torch.device") -> None: ...
    def enable_sequential_cpu_offload(self, *, device: "torch.device") -> None: ...


def call_options(pipe: Pipeline) -> dict[str, Any]:
    """What a call with text states is told besides, to sample at the base's own size; mostly nothing.

    Sana's takes 1024 pixels unless told, and of what it is told the nearest in its tables; and it has a
    negative prompt, which does not go with the states of one.
    """
    if "use_resolution_binning" not in inspect.signature(type(pipe).__call__).parameters:
        return {}
    side = pipe.transformer.config.sample_size * pipe.vae_scale_factor
    return {"height": side, "width": side, "use_resolution_binning": False, "negative_prompt": None}
