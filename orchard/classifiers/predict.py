"""Class probabilities of a trained network."""

import contextlib
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from orchard.images.arrays import Images


def to_float(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; a CUDA one is not waited for, since it has its copy before this returns."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Arithmetic of the network in ``dtype``, weights kept in float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def probabilities(
    model: nn.Module,
    pixels: Images,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 256,
) -> np.ndarray:
    """(N, H, W, 3) uint8, N >= 1 -> (N, K) float64 whose rows sum to 1; the softmax is in float64."""
    return forward(model, pixels, device, dtype, batch_size).double().softmax(dim=1).numpy()


def forward(
    model: nn.Module,
    pixels: Images,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 256,
) -> Tensor:
    """(N, H, W, 3) uint8, N >= 1 -> (N, K) float32 logits on the CPU, in evaluation mode."""
    assert len(pixels), "no images to classify"
    training = model.training
    model.eval()
    rows = []
    with torch.inference_mode(), autocast(device, dtype):
        for start in range(0, len(pixels), batch_size):
            batch = torch.from_numpy(pixels[start : start + batch_size]).to(device)
            rows.append(model(to_float(batch)).float())
    model.train(training)
    return torch.cat(rows).cpu()


def features(
    model: nn.Module, layer: nn.Module, pixels: Images, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, F) float64, what reaches ``layer``."""
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float().cpu()))
    try:
        forward(model, pixels, device, dtype)
    finally:
        hook.remove()
    return torch.cat(caught).double().numpy()
