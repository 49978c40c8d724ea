"""Prompts through a pipeline's text encoders, for training and for sampling alike."""

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orchard.bases import bases, components, embeddings
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES, T5, Layout
from orchard.bases.pipeline import Pipeline
from orchard.errors import UserError

STATES = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
"""What a stock pipeline's ``encode_prompt`` returns, in order; SD 1 and 2 have the first two alone."""
MASKED_STATES = (
    "prompt_embeds",
    "prompt_attention_mask",
    "negative_prompt_embeds",
    "negative_prompt_attention_mask",
)
"""Likewise of Sana."""
INSTRUCTION = "complex_human_instruction"
T5_TOKENS = 256
"""What the stock SD 3 pipeline passes to its third encoder."""
GEMMA_TOKENS = 300
"""Of a prompt, what the stock Sana pipeline passes to its encoder behind the instruction."""
AT_ONCE = 1000
"""Prompts that a tokenizer takes at a time: a call costs more than a prompt."""
MOST_CHUNKS = 3
"""Chunks of a prompt that are read: 225 tokens, as kohya's largest max_token_length."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How CLIP reads prompts, where that is not as the stock pipeline does."""

    clip_skip: int = 0
    """The last layer that counts, from the end as kohya and WebUI have it: 1 is the last, 2 the one before;
    diffusers counts one less. 0 is the one that the base was trained with."""
    chunks: int = 1
    """Chunks of 75 tokens that prompts are filled up to. Each is read by itself and their states come one
    after the other, as in WebUI and ComfyUI; the pooled state is the first one's."""


STOCK = Reading()


@torch.no_grad()
def encode(
    pipe: Pipeline, prompts: Sequence[str], *, negative: bool, reading: Reading = STOCK, away: bool = False
) -> dict[str, Tensor]:
    """P prompts -> text states, each (P, ...), under the names the pipeline's call takes them by.

    ``negative`` adds the states of the empty prompt that guidance leads away from, of the layer that the
    stock pipeline takes. ``away`` reads the prompts as what guidance leads away from: without the instruction
    that Sana's reads others behind. Prompts that are too long are cut off, as by the pipeline itself.
    """
    if reading != STOCK:
        return _read(pipe, prompts, negative, reading)
    # SD 3 asks for the prompts of its other encoders; None stands for the first one's.
    others: dict[str, Any] = {"prompt_2": None, "prompt_3": None} if hasattr(pipe, "text_encoder_3") else {}
    masks = reads_masks(pipe)
    # Nor is the empty prompt, which captions are dropped for, read behind it.
    if masks and any(prompts) and not away:
        others["complex_human_instruction"] = _parameters(type(pipe).__call__)[INSTRUCTION].default
    states = pipe.encode_prompt(
        prompt=list(prompts),
        # Of weights that are kept off the GPU, `device` would tell where they wait.
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=negative,
        **others,
    )
    names = MASKED_STATES if masks else STATES
    return {name: state for name, state in zip(names, states, strict=False) if state is not None}


def reads_masks(pipe: Pipeline) -> bool:
    """Whether the denoiser is told which text states are padding: Sana's, read by a language model."""
    return INSTRUCTION in _parameters(pipe.encode_prompt)


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _read(pipe: Pipeline, prompts: Sequence[str], negative: bool, reading: Reading) -> dict[str, Tensor]:
    """`encode` where the stock pipeline would read otherwise; of SD 1, 2 and XL."""
    encoders = [name for name in ("text_encoder", "text_encoder_2") if hasattr(pipe, name)]

    def states(texts: Sequence[str], clip_skip: int) -> dict[str, Tensor]:
        ids = {name: _worded_ids(pipe, tokenizer_of(pipe, name), texts, reading.chunks) for name in encoders}
        joint, pooled = from_tokens(pipe, ids, clip_skip)
        return {"prompt_embeds": joint, **({"pooled_prompt_embeds": pooled[1]} if pooled[1:] else {})}

    found = states(prompts, reading.clip_skip)
    if negative:
        empty = states([""] * len(prompts), 0)
        if pipe.components.get("text_encoder_2") and pipe.config.force_zeros_for_empty_prompt:
            empty = {name: torch.zeros_like(state) for name, state in empty.items()}
        found |= {f"negative_{name}": state for name, state in empty.items()}
    return found


def _worded_ids(pipe: Pipeline, tokenizer: Any, texts: Sequence[str], chunks: int) -> Tensor:
    """`token_ids` on the pipeline's device, with all tokens of the words that the pipeline has learned."""
    spelled = pipe.maybe_convert_prompt(list(texts), tokenizer)
    return token_ids(tokenizer, spelled, chunks).to(pipe._execution_device)


def tokenizer_of(pipe: Pipeline, encoder: str) -> Any:
    """The tokenizer of a text encoder."""
    return getattr(pipe, encoder.replace("text_encoder", "tokenizer"))


def token_ids(tokenizer: Any, prompts: Sequence[str], chunks: int = 1) -> Tensor:
    """P prompts -> (P, chunks * L) token ids of CLIP, each chunk of L with its marks of start and end."""
    length = tokenizer.model_max_length
    if chunks == 1:
        options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
        return tokenizer(list(prompts), **options).input_ids
    room, rows = length - 2, []
    for ids in tokenizer(list(prompts), add_special_tokens=False, verbose=False).input_ids:
        parts = (ids[chunk * room : (chunk + 1) * room] for chunk in range(chunks))
        marked = ([tokenizer.bos_token_id, *part, tokenizer.eos_token_id] for part in parts)
        rows.append([[*part, *[tokenizer.pad_token_id] * (length - len(part))] for part in marked])
    return torch.tensor(rows).flatten(1)


def from_tokens(pipe: Pipeline, ids: Mapping[str, Tensor], clip_skip: int = 0) -> tuple[Tensor, list[Tensor]]:
    """`token_ids` of P prompts by encoder -> their joined states, (P, chunks * L, D), and each pooled one.

    Of SD 1 and 2 the states are those of the last layer, normalised, and nothing is pooled for the denoiser.
    SDXL and SD 3 take those before the last layer as they are, and what each encoder gives first.
    """
    alone = not hasattr(pipe, "text_encoder_2")
    states, pooled = [], []
    for name, rows in ids.items():
        encoder, length = getattr(pipe, name), tokenizer_of(pipe, name).model_max_length
        output = encoder(rows.reshape(-1, length), output_hidden_states=True)
        if alone:
            layer = encoder.final_layer_norm(output.hidden_states[-clip_skip]) if clip_skip else output[0]
        else:
            layer = output.hidden_states[-(clip_skip or 2)]
        states.append(layer.reshape(*rows.shape, -1))
        pooled.append(output[0].reshape(len(rows), -1, *output[0].shape[1:])[:, 0])
    return torch.cat(states, dim=-1), [] if alone else pooled


def require_clip_skip(base: Base, clip_skip: int) -> None:
    """Raise `UserError` where the base's encoders have no such layer, or its denoiser takes no other."""
    if not clip_skip:
        return
    if not FAMILIES[base.family].clip_alone:
        raise UserError(
            f"--clip_skip {clip_skip}: --base {base.name} reads prompts with another encoder than CLIP too; "
            "leave it out"
        )
    least = 2 if base.family == "sdxl" else 1
    encoders = FAMILIES[base.family].text_encoders
    files = (base.folder / encoder / "config.json" for encoder in encoders)
    most = min(components.config(file, base.name)["num_hidden_layers"] for file in files)
    if not least <= clip_skip <= most:
        raise UserError(f"--clip_skip {clip_skip}: give {least} to {most} for --base {base.name}")


def chunks(base: Base, prompts: Iterable[str], words: Mapping[str, int] = {}) -> int:
    """How many chunks the longest of the prompts needs, at most `MOST_CHUNKS`; one unless CLIP alone reads.

    ``words`` are learned ones in them, and the number of vectors of each.
    """
    return max(chunks_of(base, prompts, words), default=1)


def chunks_of(base: Base, prompts: Iterable[str], words: Mapping[str, int] = {}) -> list[int]:
    """The `chunks` that each of the prompts needs by itself."""
    spelled = [embeddings.spelled(prompt, words) for prompt in prompts]
    needed = [1] * len(spelled)
    if FAMILIES[base.family].clip_alone:
        for tokenizer, _ in _worded_readers(base, words):
            room = tokenizer.model_max_length - 2
            for row, tokens in enumerate(_tokens(spelled, tokenizer)):
                needed[row] = max(needed[row], min(MOST_CHUNKS, -(-len(tokens) // room)))
    return needed


def _tokens(prompts: Sequence[str], tokenizer: Any) -> Iterator[Sequence[tuple[int, int]]]:
    """Where each token of each prompt begins and ends in it."""
    # Told to be silent, since what it would warn of is what is looked for here.
    options = {"return_offsets_mapping": True, "add_special_tokens": False, "verbose": False}
    for start in range(0, len(prompts), AT_ONCE):
        yield from tokenizer(prompts[start : start + AT_ONCE], **options)["offset_mapping"]


def cut(base: Base, prompts: Iterable[str], words: Mapping[str, int] = {}) -> dict[str, str]:
    """Prompt -> the words at its end that no text encoder of the base would see; only such prompts.

    Found with the tokenizers alone. ``words`` as in `chunks`.
    """
    asked = list(dict.fromkeys(prompts))
    spelled = [embeddings.spelled(prompt, words) for prompt in asked]
    unread = [
        [
            _unread(prompt, tokens, room)
            for prompt, tokens in zip(spelled, _tokens(spelled, tokenizer), strict=True)
        ]
        for tokenizer, room in _worded_readers(base, words)
    ]
    found = zip(asked, (min(ends, key=len) for ends in zip(*unread, strict=True)), strict=True)
    return {prompt: lost for prompt, lost in found if lost}


def _worded_readers(base: Base, words: Mapping[str, int]) -> list[tuple[Any, int]]:
    """`_readers` that know the words."""
    return [(embeddings.with_words(tokenizer, words), room) for tokenizer, room in _readers(base)]


@functools.cache
def _readers(base: Base) -> tuple[tuple[Any, int], ...]:
    """Each tokenizer and the tokens that its encoder reads of a prompt."""
    import transformers

    found, index, layout = [], bases.index(base), FAMILIES[base.family]
    for encoder in layout.text_encoders:
        part = encoder.replace("text_encoder", "tokenizer")
        kind = (index.get(part) or [None, None])[1]
        if kind is not None:
            tokenizer = getattr(transformers, kind).from_pretrained(base.folder / part, local_files_only=True)
            length = _length(layout, encoder, tokenizer)
            room = length - tokenizer.num_special_tokens_to_add()
            found.append((tokenizer, room * (MOST_CHUNKS if layout.clip_alone else 1)))
    return tuple(found)


def _length(layout: Layout, encoder: str, tokenizer: Any) -> int:
    """Tokens that the stock pipeline passes to an encoder."""
    if encoder in layout.clip_encoders:
        return int(tokenizer.model_max_length)
    return T5_TOKENS if encoder == T5 else GEMMA_TOKENS


def _unread(prompt: str, tokens: Sequence[tuple[int, int]], room: int) -> str:
    """The words from the first one of which a token is left out."""
    if len(tokens) <= room:
        return ""
    end = tokens[room - 1][1]
    lost = (prompt[word.start() :] for word in re.finditer(r"\S+", prompt) if word.end() > end)
    return next(lost, "")
