"""Prompts that are longer than a text encoder reads, found with the tokenizers alone."""

import functools
import re
from collections.abc import Iterable
from typing import Any

from orchard import bases
from orchard.bases import Base
from orchard.families import FAMILIES, T5

T5_TOKENS = 256
"""What the stock SD 3 pipeline passes to its third encoder."""


def cut(base: Base, prompts: Iterable[str]) -> dict[str, str]:
    """Prompt -> the words at its end that no text encoder of the base would see; only such prompts."""
    found = {
        prompt: min((_unread(prompt, *reader) for reader in _readers(base)), key=len) for prompt in prompts
    }
    return {prompt: words for prompt, words in found.items() if words}


@functools.cache
def _readers(base: Base) -> tuple[tuple[Any, int], ...]:
    """Each tokenizer and the tokens that its encoder reads, marks of start and end included."""
    import transformers

    found, index = [], bases.index(base)
    for encoder in FAMILIES[base.family].text_encoders:
        part = encoder.replace("text_encoder", "tokenizer")
        kind = (index.get(part) or [None, None])[1]
        if kind is not None:
            tokenizer = getattr(transformers, kind).from_pretrained(base.folder / part, local_files_only=True)
            found.append((tokenizer, T5_TOKENS if encoder == T5 else tokenizer.model_max_length))
    return tuple(found)


def _unread(prompt: str, tokenizer: Any, most: int) -> str:
    """The words from the first one of which a token is left out."""
    # Told to be silent, since what it would warn of is what is looked for here.
    options = {"return_offsets_mapping": True, "add_special_tokens": False, "verbose": False}
    spans = tokenizer(prompt, **options)["offset_mapping"]
    room = most - tokenizer.num_special_tokens_to_add()
    if len(spans) <= room:
        return ""
    end = spans[room - 1][1]
    lost = (prompt[word.start() :] for word in re.finditer(r"\S+", prompt) if word.end() > end)
    return next(lost, "")
