"""Tokenizer in, pipeline folder out, and the preview sheet in between."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from mini import autoencoder, denoiser, loop
from mini.denoiser import SCHEDULE, Denoiser
from orchard.errors import UserError
from orchard.files import checked_json

TOKENS = 24
HISTORY = "training.json"
EMBEDDINGS = "embeddings.token_embedding.weight"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def tokenizer(texts: list[str], folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make every caption word one token; other words spell out in bytes.

    It is made once and kept in ``folder``: made anew, it may number its words in another order.
    """
    if not folder.exists():
        with _whole(folder) as aside:
            _tokenizer(texts).save_pretrained(aside)
    return _plain(CLIPTokenizer.from_pretrained(folder))


def _tokenizer(texts: list[str]) -> CLIPTokenizer:
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{x}</w>" for x in letters), *("".join(m) for m in merges), *SPECIAL]
    return _clip({token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges)


def _plain(loaded: CLIPTokenizer) -> CLIPTokenizer:
    """The same as if made here: the configuration of a loaded one would say where it was."""
    merges = json.loads(loaded.backend_tokenizer.to_str())["model"]["merges"]
    return _clip(loaded.get_vocab(), [tuple(merge) for merge in merges])


def _clip(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[1],
        unk_token=SPECIAL[1],
        model_max_length=TOKENS,
    )


def pipeline(vae: AutoencoderKL, denoiser: Denoiser, words: CLIPTokenizer) -> StableDiffusionPipeline:
    """The stock pipeline of the trained parts."""
    vae.register_to_config(scaling_factor=denoiser.scale)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text,
        tokenizer=words,
        unet=denoiser.unet,
        scheduler=DPMSolverMultistepScheduler(**{k: v for k, v in SCHEDULE.items() if k != "clip_sample"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(loop.DEVICE)


def load(folder: Path) -> tuple[AutoencoderKL, Denoiser, CLIPTokenizer]:
    """What `write` wrote, in fp32, as if made here: configs of loaded parts would say where they were.

    Raises:
        UserError: `write` did not write it, or a part is missing or damaged.
    """
    if not (folder / HISTORY).is_file():
        raise UserError(f"--start {folder}: no {HISTORY} there; give a folder that this script wrote")
    try:
        checked_json.table(
            {"stages": dict, "runs": list}, checked_json.parse(checked_json.read(folder / HISTORY))
        )
        pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        vae = autoencoder.build()
        vae.load_state_dict(pipe.vae.state_dict())
        denoiser = Denoiser(unet=pipe.unet, text=pipe.text_encoder, scale=pipe.vae.config.scaling_factor)
        words = _plain(pipe.tokenizer)
    except Exception as error:  # what the libraries raise depends on the part and on what it lacks
        raise UserError(
            f"--start {folder}: cannot be loaded ({_short(error)}); give a whole folder"
        ) from None
    return vae.eval().requires_grad_(False), denoiser, words


def carried(start: Denoiser, old: CLIPTokenizer, new: CLIPTokenizer) -> Denoiser:
    """``start`` with a text encoder that reads the words of ``new``.

    The embeddings of words that ``old`` has too are carried over; others begin at random.
    """
    text = denoiser.build(new)[1]
    weights = start.text.state_dict()
    before, after = weights[EMBEDDINGS], text.state_dict()[EMBEDDINGS].clone()
    numbers = old.get_vocab()
    for token, row in new.get_vocab().items():
        if token in numbers:
            after[row] = before[numbers[token]]
    text.load_state_dict({**weights, EMBEDDINGS: after})
    return Denoiser(unet=start.unet, text=text, scale=start.scale)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@torch.no_grad()
def sample(pipe: StableDiffusionPipeline, prompt: str, count: int) -> np.ndarray:
    """(count, 64, 64, 3) uint8 pictures of ``prompt``, with the seeds 0, 1, and so on."""
    images = pipe(
        [prompt] * count,
        generator=[torch.Generator().manual_seed(seed) for seed in range(count)],
        num_inference_steps=20,
        guidance_scale=3.0,
        output_type="np",
    ).images
    return (images * 255).round().astype(np.uint8)


def sheet(rows: list[np.ndarray], path: Path, scale: int = 2) -> None:
    """(N, H, W, 3) uint8 pictures a row -> one PNG, enlarged ``scale`` times."""
    pixels = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    height, width = pixels.shape[:2]
    Image.fromarray(pixels).resize((width * scale, height * scale)).save(path)


def write(pipe: StableDiffusionPipeline, out: Path, card: str, history: dict[str, dict]) -> int:
    """Save the pipeline in fp16 with its card and what training it has had; returns its size in bytes."""
    with _whole(out) as aside:
        pipe.to(torch.float16).save_pretrained(aside, safe_serialization=True)
        _load_in_fp32(aside / "text_encoder" / "config.json")
        (aside / "README.md").write_text(card)
        (aside / HISTORY).write_text(json.dumps(history, indent=2) + "\n")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def copy(folder: Path, to: Path) -> None:
    """Copy a pipeline folder, whole or not at all."""
    with _whole(to) as aside:
        shutil.copytree(folder, aside)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A name to write a folder under; it takes the place of ``folder`` only once all of it is there."""
    aside, old = (folder.with_name(f"{folder.name}.{ending}") for ending in ("part", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    yield aside
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _load_in_fp32(config: Path) -> None:
    """Say float32 in a config: transformers takes a network's own type, diffusers float32 for all others."""
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"dtype": "float32"}, indent=2) + "\n")
