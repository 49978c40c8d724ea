"""What a training set takes of memory while it is trained on: encoded photos with a caption each."""

import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator

from finetune.data import encoded_cache
from finetune.data.encoded_cache import Tensors
from finetune.step.batches import EncodedDataset, EncodedImage, Lazy, draw, encoded_dataset

LATENTS, TOKENS = (2, 4, 32, 32), (77, 256)
"""Of an entry: latents of 256 px, and embeddings of a fifth of Stable Diffusion's width; 144 KB together."""
STEPS, BATCH = 50, 8


def held(size: int) -> float:
    """Megabytes that a process has of its own for as many photos, less what it had for none."""
    with tempfile.TemporaryDirectory() as name:
        _step(_dataset(Path(name), BATCH))
        before = _own_bytes()
        dataset = _dataset(Path(name), size)
        _step(dataset)
        return (_own_bytes() - before) / 2**20


def _dataset(folder: Path, size: int) -> EncodedDataset:
    accelerator = Accelerator(cpu=True)

    def photo(row: int) -> Tensors:
        return {"mean": torch.full(LATENTS, float(row)), "std": torch.ones(LATENTS)}

    def prompts(texts: list[str]) -> Lazy[Tensors]:
        keys = [{"kind": "prompts", "text": text} for text in texts]
        made = lambda row: {"prompt_embeds": torch.full(TOKENS, float(row))}  # noqa: E731
        return encoded_cache.gather(folder, keys, made, accelerator, title="", unit="", least=size + 2)

    keys = [{"kind": "photos", "file": str(row)} for row in range(size)]
    found = encoded_cache.gather(folder, keys, photo, accelerator, title="", unit="", least=size + 2)
    images = Lazy(len(found), lambda row: EncodedImage(**found[row]))
    captions = [f"photo {row}" for row in range(size)]
    return encoded_dataset(images, [(256, 256)] * size, captions, prompts)


def _step(dataset: EncodedDataset) -> None:
    for step in range(STEPS):
        draw(dataset, step, batch_size=BATCH, seed=0, flip=True)


def _own_bytes() -> int:
    """Of memory that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
