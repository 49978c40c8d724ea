"""Words of their own for the classes: textual inversion, alone or beside an adapter (pivotal tuning)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from finetune.config import TrainLora
from finetune.models.family import Family
from orchard import prompt_template
from orchard.adapters import adapter, embeddings
from orchard.adapters.contexts import Caption
from orchard.adapters.provenance import INVERSION, Embedding, Provenance
from orchard.bases import embeddings as known_words
from orchard.bases import prompt_embeds
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.cli import cli
from orchard.files.atomic import file_hash
from orchard.images.images import ImageSet, Photo


@dataclass(frozen=True, kw_only=True)
class Words:
    """One word a class, of some vectors in each text encoder; the part of a `Method` that learns them."""

    of: Mapping[str, str]
    """Class -> word."""
    vectors: int
    alone: bool
    """Whether they are all that learns, and so what the file holds."""

    def put_in(self, family: Family) -> dict[str, list[torch.nn.Parameter]]:
        """Start each word from the vectors of its class's name, float32."""
        starts = {
            word: known_words.start(family.pipe, label, self.vectors) for label, word in self.of.items()
        }
        found = {name: {word: start[name] for word, start in starts.items()} for name in family.text_encoders}
        known_words.extend(family.pipe, found)
        layers = {name: encoder.get_input_embeddings() for name, encoder in family.text_encoders.items()}
        return {name: [layer.learned.weight.requires_grad_(True)] for name, layer in layers.items()}

    @contextmanager
    def base_alone(self, family: Family) -> Iterator[None]:
        """Inside, the text encoders know nothing of the words."""
        parts = [(name, name.replace("text_encoder", "tokenizer")) for name in family.text_encoders]
        layers = {name: getattr(family.pipe, name).get_input_embeddings() for name, _ in parts}
        tokenizers = {name: getattr(family.pipe, name) for _, name in parts}
        known_words.restore(family.pipe)
        try:
            yield
        finally:
            for name, layer in layers.items():
                getattr(family.pipe, name).set_input_embeddings(layer)
            for name, tokenizer in tokenizers.items():
                setattr(family.pipe, name, tokenizer)

    def take_out(self, family: Family) -> None:
        """Leave the text encoders as they were."""
        known_words.restore(family.pipe)

    def save(self, path: Path, family: Family, provenance: Provenance) -> Provenance:
        """Write each word's file, ``path`` itself or beside it; the provenance that says so."""
        vectors = known_words.vectors_of(family.pipe, dict.fromkeys(self.of.values(), self.vectors))
        said: dict[str, Embedding] = {}
        for label, word in self.of.items():
            file = path if self.alone else embeddings.path_of(path, label)
            # Its hash is in the adapter's header, so it has to be fit to be shared as it is.
            of_class = replace(
                provenance if self.alone else adapter.public(provenance),
                method=INVERSION,
                classes=[label],
                contexts={name: bank for name, bank in provenance.contexts.items() if name == label},
                embeddings={label: {"word": word, "sha256": ""}},
            )
            own = {name: of_words[word] for name, of_words in vectors.items()}
            embeddings.save(file, word, own, of_class)
            said[label] = {"word": word, "sha256": "" if self.alone else file_hash(file)}
        return replace(provenance, embeddings=said)


def words_of(config: TrainLora, classes: Sequence[str]) -> dict[str, str]:
    """Class -> its word, where classes have some."""
    return {label: embeddings.word_of(label) for label in classes} if config.vectors else {}


def counts(config: TrainLora, classes: Sequence[str]) -> dict[str, int]:
    """The words of classes, and the number of vectors of each."""
    return dict.fromkeys(words_of(config, classes).values(), config.vectors)


def prompt(config: TrainLora, label: str) -> str:
    """The prompt of a class, with its word if it has one."""
    return prompt_template.fill(config.template, words_of(config, [label]).get(label, label))


def in_prompts(config: TrainLora, photos: ImageSet, said: Mapping[str, Caption]) -> ImageSet:
    """The photos, their prompts with the words of their classes; ``said`` are contexts by the files' hashes.

    Raises:
        UserError: a caption that does not name the class.
    """
    if not config.vectors:
        return photos

    def worded(photo: Photo) -> str:
        word = embeddings.word_of(photo.label)
        if photo.sha256 in said:
            return said[photo.sha256].prompt(config.template, word)
        return _named(photo, photo.text, word) if photo.text else prompt(config, photo.label)

    return photos.keep(replace(photo, text=worded(photo)) for photo in photos.photos)


def _named(photo: Photo, caption: str, word: str) -> str:
    """The caption with the word for the class's name."""
    name = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", photo.label)))
    found, times = re.subn(rf"(?<!\w){name}(?!\w)", word, caption, flags=re.IGNORECASE)
    cli.check(
        bool(times),
        f"{photo.path}: its caption {caption[:80]!r} does not name its class {photo.label}, whose place a "
        "learned word takes; write the name into it, or pass --captions none",
    )
    return found


def require_supported(config: TrainLora, base: Base, classes: Sequence[str]) -> None:
    """Raise `UserError` where the base has no place for words, or two classes would have the same one."""
    if not config.vectors:
        return
    cli.check(
        FAMILIES[base.family].clip_alone,
        f"--{'num_vectors' if config.num_vectors else 'method textual_inversion'}: diffusers loads no words "
        f"into a {FAMILIES[base.family].pipeline}, which --base {base.name} is; train a LoRA",
    )
    embeddings.require_distinct(classes)
    for label, word in words_of(config, classes).items():
        said = prompt(config, label)
        lost = prompt_embeds.cut(base, [said], {word: config.vectors}).get(said, "")
        cli.check(
            word not in lost,
            f"--num_vectors {config.vectors}: more than the text encoders of --base {base.name} read of "
            f"{said!r}; give fewer",
        )
