"""Files of textual inversion: a word of a class, and the vectors that text encoders take for it.

With one text encoder the vectors lie under the word, which is how diffusers names it and WebUI finds them;
with SDXL's two under kohya's ``clip_l`` and ``clip_g``, which WebUI and ComfyUI read, and diffusers where it
is told the word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

from orchard.adapters.provenance import HEADER, Provenance
from orchard.errors import UserError
from orchard.files import atomic, checked_safetensors

if TYPE_CHECKING:
    from torch import Tensor

AnyPath = TypeVar("AnyPath", bound=PurePath)
FOLDER = "embeddings"
"""Beside the adapters that are trained with words: for the files of those."""
KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
BUNDLE = "bundle_emb"
"""How keys begin of vectors inside a LoRA file, which WebUI and ComfyUI read."""
ALL = "string_to_param.*"
"""How they end where there is one text encoder."""


def word_of(label: str) -> str:
    """The word that stands for a class in prompts, such as ``<apple>``.

    Without dots, which WebUI takes for the end of a name, and in small letters, as CLIP reads.
    """
    return f"<{atomic.file_name(label).lower().replace('.', '_')}>"


def require_distinct(labels: Sequence[str]) -> None:
    """Raise `UserError` when two classes would have one word."""
    words: dict[str, str] = {}
    for label in labels:
        other = words.setdefault(word_of(label), label)
        if other != label:
            raise UserError(
                f"classes {other!r} and {label!r} give the same word {word_of(label)}; rename one"
            )


def path_of(adapter: AnyPath, label: str) -> AnyPath:
    """Where the vectors of a class lie that belong to an adapter."""
    return adapter.parent / FOLDER / f"{atomic.file_name(label)}.safetensors"


def save(path: Path, word: str, vectors: Mapping[str, Tensor], provenance: Provenance) -> None:
    """Write the vectors of one word, (N, D) by text encoder, whole or not at all."""
    from safetensors.torch import save_file

    one = len(vectors) == 1
    tensors = {word if one else KEYS[name]: value.contiguous() for name, value in vectors.items()}
    metadata = {"format": "pt", HEADER: json.dumps(asdict(provenance), sort_keys=True)}
    with atomic.whole_file(path) as aside:
        save_file(tensors, aside, metadata=metadata)


def read(path: Path, word: str) -> dict[str, Tensor]:
    """The vectors of a word by text encoder, (N, D) each, from a file of its own or a bundle.

    Raises:
        UserError: the file holds something else, NaN or infinity.
    """
    prefix = f"{BUNDLE}.{word}."
    try:
        everything = checked_safetensors.load(path)
        own = {key.removeprefix(prefix): value for key, value in everything.items() if key.startswith(prefix)}
        tensors = own or everything
        one = tensors.keys() & {word, ALL}
        named = dict.fromkeys(one, "text_encoder") or {key: name for name, key in KEYS.items()}
        if tensors.keys() != named.keys():
            raise ValueError(f"it holds {', '.join(sorted(tensors))[:80]}")
        sizes = {tensor.ndim == 2 and len(tensor) for tensor in tensors.values()}
        if len(sizes) > 1 or not sizes.pop():
            raise ValueError("its tensors are no equal numbers of vectors")
        if not all(tensor.float().isfinite().all() for tensor in tensors.values()):
            raise ValueError("it holds NaN or infinity")
    except ValueError as error:
        raise UserError(f"--lora {path}: no vectors of {word} ({error})") from None
    return {named[key]: tensor.float() for key, tensor in tensors.items()}


def is_bundled(key: str) -> bool:
    """Whether a key of a LoRA file is one of vectors."""
    return key.startswith(f"{BUNDLE}.")


def bundled(vectors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Text encoder -> word -> vectors, under the names that they have inside a LoRA file."""
    one = len(vectors) == 1
    return {
        f"{BUNDLE}.{word}.{ALL if one else KEYS[name]}": value.contiguous()
        for name, of_words in vectors.items()
        for word, value in of_words.items()
    }
