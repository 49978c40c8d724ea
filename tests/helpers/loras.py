"""Random LoRA files for the tiny pipeline, and what a loaded one does to it."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.models import lora
from orchard.adapters import adapter
from orchard.bases import bases

CPU = torch.device("cpu")
RANK = 4
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"


def load(base: bases.Base):
    """The base's pipeline in single precision on the CPU."""
    return bases.load(base, torch.float32, CPU)


def matrices(*modules: str, width: int = 32, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (down, up), drawn for square layers of ``width``."""
    g = torch.Generator().manual_seed(seed)
    return {
        m: (torch.randn(RANK, width, generator=g), torch.randn(width, RANK, generator=g)) for m in modules
    }


def written(path: Path, tensors: dict[str, Tensor], **header: str) -> adapter.Adapter:
    """The adapter in a file of these tensors."""
    whole = {key: value.contiguous() for key, value in tensors.items()}
    save_file(whole, path, metadata={"format": "pt", **header})
    return adapter.read(path)


def fused(pipe, module: str) -> Tensor:
    """What the attached LoRA adds to a weight of the UNet."""
    before = pipe.unet.get_submodule(module).base_layer.weight.detach().clone()
    pipe.fuse_lora()
    after = pipe.unet.get_submodule(module).base_layer.weight.detach().clone()
    pipe.unfuse_lora()
    return after - before


def picture(pipe) -> np.ndarray:
    """An image of the pipeline, the same each time."""
    generator = torch.Generator().manual_seed(5)
    size = {"height": 32, "width": 32}
    return pipe("an apple", generator=generator, num_inference_steps=2, output_type="np", **size).images[0]


def kohya(found: dict[str, tuple[Tensor, Tensor]], alpha: float | None) -> dict[str, Tensor]:
    """The matrices under kohya's names, with an alpha each unless it is None."""
    tensors = {}
    for module, (down, up) in found.items():
        name = f"lora_unet_{module.replace('.', '_')}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def trained(out: Path, folder: Path, labels: list[str]) -> dict[str, str]:
    """Files of this toolkit's own for the base in ``folder``, one a class, with visible weights."""
    base = bases.resolve(str(folder))
    for seed, label in enumerate(labels):
        pipe = load(base)
        for parameter in lora.inject(pipe.unet, RANK, RANK, seed):
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(seed))
        provenance = adapter.Provenance(
            base=str(folder),
            base_digest=base.digest,
            family="sd",
            resolution=32,
            classes=[label],
            all_classes=labels,
            prompt="a photo of {label}",
            rank=RANK,
            alpha=float(RANK),
            steps=1,
            seed=seed,
            losses={},
            trained_on=[f"{seed:064x}"],
            data="test",
        )
        adapter.save(out / f"{label}.safetensors", pipe.unet, provenance)
    return {label: str(out / f"{label}.safetensors") for label in labels}


def good(tmp_path: Path) -> adapter.Adapter:
    """A file that fits the tiny pipeline."""
    return written(tmp_path / "good.safetensors", kohya(matrices(QUERY), None))


def retold(path: Path, **changes: object) -> None:
    """Write the file again, with other values in its header."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    header["orchard"] = json.dumps({**json.loads(header["orchard"]), **changes})
    save_file(load_file(path), path, metadata=header)
