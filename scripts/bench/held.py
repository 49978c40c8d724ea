"""What sets of photos take of memory: one that is trained on, one that is looked at."""

import tempfile
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from finetune.data import encoded_cache
from finetune.data.encoded_cache import Tensors
from finetune.step.batches import EncodedDataset, EncodedImage, Lazy, draw, encoded_dataset
from generate.outputs import metadata
from orchard.images.images import TRAIN, ImageSet, Photo, sha256
from review import checks, mislabels

LATENTS, TOKENS = (2, 4, 32, 32), (77, 256)
"""Of a photo's entries: latents of 256 px, embeddings a third as wide as Stable Diffusion's; 142 KB."""
STEPS, BATCH = 50, 8
MB = 10**6


def training_set(size: int) -> float:
    """Megabytes that a process has of its own for as many photos with captions, less what it had for none."""
    with tempfile.TemporaryDirectory() as name:
        _step(_dataset(Path(name), BATCH))
        before = own_bytes()
        dataset = _dataset(Path(name), size)
        _step(dataset)
        AcceleratorState._reset_state()  # else nothing here could take another precision
        return max(own_bytes() - before, MB) / MB


def _dataset(folder: Path, size: int) -> EncodedDataset:
    accelerator = Accelerator()

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


def own_bytes() -> int:
    """Of memory that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def review(size: int) -> float:
    """Megabytes at most that `review.checks.examine` holds of as many photos, those of Pillow left out."""
    rng = np.random.default_rng(0)
    photos = []
    for number in range(size):
        picture = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        data = metadata.png(picture, prompt="", system="")
        photos.append(
            Photo(
                path=f"{number}.png",
                label="ab"[number % 2],
                split=TRAIN,
                sha256=sha256(data),
                read=partial(bytes, data),
            )
        )
    images = ImageSet(name="photos", classes=("a", "b"), photos=tuple(photos))
    tracemalloc.start()
    try:
        checks.examine(images, mislabels.colours_and_edges, lambda count: None)
        return tracemalloc.get_traced_memory()[1] / MB
    finally:
        tracemalloc.stop()
