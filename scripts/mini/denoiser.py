"""The diffusion stage: text encoder and UNet trained together on cached latents, v-prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mini import captions, loop
from mini.data import Photos, class_weights

BATCH = 64
WIDTH = 192
GAMMA = 5.0
PEAK = 6e-4
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "clip_sample": False,
}


@dataclass(kw_only=True)
class Denoiser:
    """The two trained networks and the factor that gives the latents unit variance."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    scale: float


def build(tokenizer: CLIPTokenizer) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Untrained networks of the stock classes."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(96, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=(3, 6),
        norm_num_groups=32,
    )
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=6,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return unet, CLIPTextModel(config)


class Batches:
    """Draws latents, noise and caption numbers; all arrays stay in memory."""

    def __init__(
        self, latents: Tensor, scale: float, photos: Photos, weights: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.latents, self.scale, self.photos, self.rng = latents.to(loop.DEVICE), scale, photos, rng
        self.cumulative = np.cumsum(weights)

    def draw(self) -> tuple[Tensor, list[str]]:
        """(B, 4, 16, 16) unit-variance latents and B captions."""
        rows = np.searchsorted(self.cumulative, self.rng.random(BATCH)).clip(0, len(self.cumulative) - 1)
        flips = self.rng.integers(2, size=BATCH)
        mean, std = self.latents[flips, rows].float().chunk(2, dim=1)
        latents = (mean + std * torch.randn_like(mean)) * self.scale
        names, labels, traits = self.photos.names, self.photos.labels, self.photos.traits
        return latents, [captions.draw(names[labels[row]], traits[row], self.rng) for row in rows]


class _Learner:
    """The networks in bf16, their full-precision masters, the masters' average, and the optimiser."""

    def __init__(self, tokenizer: CLIPTokenizer, start: Denoiser | None) -> None:
        self.tokenizer = tokenizer
        unet, text = build(tokenizer)
        if start:
            unet.load_state_dict(start.unet.state_dict())
            text.load_state_dict(start.text.state_dict())
        full = [p.detach().clone() for module in (unet, text) for p in module.parameters()]
        unet.set_attn_processor(AttnProcessor())
        self.unet = unet.to(loop.DEVICE, torch.bfloat16, memory_format=torch.channels_last)
        self.text = text.to(loop.DEVICE, torch.bfloat16)
        self.masters = loop.Masters(self.unet, self.text)
        self.masters.restore(full)
        self.average = loop.Average(self.masters.full)
        self.optimizer = torch.optim.AdamW(
            self.masters.full, lr=PEAK, betas=(0.9, 0.99), weight_decay=0.01, fused=loop.DEVICE.type == "cuda"
        )

    def restore(self, state: dict[str, Any]) -> None:
        self.masters.restore(state["masters"])
        self.average.values = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])

    def state(self) -> dict[str, Any]:
        optimizer = self.optimizer.state_dict()
        return {"masters": self.masters.full, "average": self.average.values, "optimizer": optimizer}

    def step(self, loss: Tensor, clock: loop.Clock) -> None:
        loss.backward()
        self.masters.step(self.optimizer, loop.learning_rate(clock.done, PEAK))
        self.average.update(self.masters.full, clock.step)

    def averaged(self, scale: float) -> Denoiser:
        weights = iter(self.average.values)
        unet, text = (_copy(module, weights) for module in build(self.tokenizer))
        return Denoiser(unet=unet, text=text, scale=scale)


def train(
    photos: Photos,
    latents: Tensor,
    tokenizer: CLIPTokenizer,
    work: Path,
    *,
    steps: int,
    seed: int,
    focus: tuple[str, ...],
    share: float,
    preview,
    start: Denoiser | None = None,
) -> Denoiser:
    """Fit text encoder and UNet in ``steps``; ``preview(denoiser, step)`` at each checkpoint.

    They begin as those of ``start``, if it is given.
    """
    scale = start.scale if start else 1 / latents[0, :, :4].float().std().item()
    learner = _Learner(tokenizer, start)
    clock = loop.Clock(name="denoiser", steps=steps, batch_size=BATCH)
    path = work / "denoiser.pt"
    if state := loop.restore(path, clock):
        learner.restore(state)
    torch.manual_seed(seed + clock.step)
    rng = np.random.default_rng([seed, 3, clock.step])
    batches = Batches(latents, scale, photos, class_weights(photos, focus, share), rng)
    compute = _objective(learner)

    def keep() -> None:
        loop.save(path, clock, **learner.state())
        preview(learner.averaged(scale), clock.step)

    for due in loop.ticks(clock, work / "log.jsonl"):
        if due:
            keep()
        loss = compute(*batches.draw())
        learner.step(loss, clock)
        clock.losses = {"loss": _smooth(clock.losses.get("loss"), loss.item())}
    keep()
    return learner.averaged(scale)


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.98 * old + 0.02 * new


def _copy(module: nn.Module, weights) -> nn.Module:
    for parameter in module.parameters():
        parameter.data.copy_(next(weights))
    return module.eval()


def _objective(learner: _Learner):
    """(latents, captions) -> scalar loss: v-prediction, min-SNR weights (Hang et al. 2023)."""
    scheduler = DDPMScheduler(**SCHEDULE)
    alphas = scheduler.alphas_cumprod.to(loop.DEVICE)
    weights = (alphas / (1 - alphas)).clamp(max=GAMMA) * (1 - alphas)
    # min(snr, gamma) / (snr + 1), with snr + 1 = 1 / (1 - alpha); never fully zero at the last step
    weights = weights.clamp(min=0.02)
    weights = weights / weights.mean()
    forward = torch.compile(learner.unet)

    def compute(latents: Tensor, captions: list[str]) -> Tensor:
        tokens = learner.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
        hidden = learner.text(tokens.to(loop.DEVICE)).last_hidden_state
        timesteps = torch.randint(len(alphas), (len(latents),), device=loop.DEVICE)
        noise = torch.randn_like(latents)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        target = scheduler.get_velocity(latents, noise, timesteps)
        noisy = noisy.bfloat16().contiguous(memory_format=torch.channels_last)
        out = forward(noisy, timesteps, hidden, return_dict=False)[0]
        error = (out.float() - target).square().mean(dim=(1, 2, 3))
        return (error * weights[timesteps]).mean()

    return compute
