"""Encoded photos and prompts on disk: one safetensors file per entry, named after its key's hash.

Entries are checked once, before the first step, and mapped into memory whenever a batch needs them: the
system keeps one copy of them for all processes of a machine, as long as it has room.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from finetune.data import masks
from finetune.step.batches import Lazy
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.cli.terminal import Terminal, bar, say
from orchard.errors import UserError
from orchard.files.atomic import whole_file
from orchard.images.boxes import Box
from orchard.images.framing import Fit
from orchard.images.images import DECODING, Photo

Key = Mapping[str, Any]
"""What an entry depends on, in JSON's types; its ``kind`` names the folder."""
Tensors = dict[str, Tensor]
KEY, CHECKSUM = "key", "sha256"


class DamagedError(Exception):
    """A file that is not the entry of its key; holds the reason."""


def path_of(folder: Path, key: Key) -> Path:
    """Where the entry of ``key`` lies."""
    return folder / key["kind"] / f"{hashlib.sha256(_canonical(key).encode()).hexdigest()}.safetensors"


def _canonical(key: Key) -> str:
    return json.dumps(key, sort_keys=True)


def write(path: Path, key: Key, tensors: Tensors) -> None:
    """Write an entry, whole or not at all."""
    contents = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {KEY: _canonical(key), CHECKSUM: _checksum(contents)}
    with whole_file(path, shared=True) as aside:
        save_file(contents, aside, metadata=header)


def is_there(path: Path, key: Key) -> bool:
    """Whether the entry of ``key`` lies at ``path``; reads all of it and keeps nothing.

    Raises:
        DamagedError: the file is cut off, changed, or the entry of something else.
    """
    try:
        with _open(path) as file:
            header = file.metadata() or {}
            checksum = _checksum(_mapped(file))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read: {error}") from None
    if header.get(KEY) != _canonical(key):
        raise DamagedError(f"{path.name} was made from something else")
    if header.get(CHECKSUM) != checksum:
        raise DamagedError(f"{path.name} has another checksum")
    return True


def read(path: Path) -> Tensors:
    """The entry at ``path``, which was checked, mapped into memory: no byte is read that is not used.

    Raises:
        UserError: it has gone or was damaged since.
    """
    try:
        with _open(path) as file:
            return _mapped(file)
    except OSError as error:
        raise UserError(
            f"{path}: gone or damaged since the run began ({error}); start it again or resume it, and leave "
            "the cache alone meanwhile"
        ) from None


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The safetensors file; raises `OSError` for whatever is none."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, RuntimeError) as error:
        raise OSError(str(error)) from None


def _mapped(file: Any) -> Tensors:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _checksum(tensors: Tensors) -> str:
    """Over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


PHOTOS, PROMPTS = "photos", "prompts"
"""Kinds of entries."""
SCHEMA = 2
"""Goes up when `Family.encode_image` or `Family.frozen_embeds` change."""
LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
"""Libraries whose versions may change the values."""
TRANSFORM = "upright, over white, {fit}, Lanczos; and its mirror image"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of a base's encoders in one precision on one kind of device."""

    autoencoder: str
    """Digest of its weights and config."""
    text_encoders: str
    """Digest of their weights, configs and tokenizers."""
    setting: Mapping[str, Any]
    sizes: Mapping[str, tuple[int, int]]
    """(height, width) in pixels at which a photo is encoded, by its file's hash."""
    fit: Fit
    """How it is fitted to them."""
    masked: bool = False
    """Whether the base inpaints, so that photos are encoded under masks too."""
    clip_skip: int = 0
    """As `prompt_embeds.Reading` has it."""

    def kept(self, photo: Photo) -> tuple[Box, ...]:
        """Boxes of a photo that a crop must not cut."""
        return photo.boxes() if self.fit == "crop" else ()

    def photo(self, photo: Photo) -> Key:
        """The key of a photo's latents."""
        kept = [list(box) for box in self.kept(photo)]
        return {
            **({"kept": kept} if kept else {}),
            **self._masks(photo),
            "kind": PHOTOS,
            "file": photo.sha256,
            "decoding": DECODING,
            "size": list(self.sizes[photo.sha256]),
            "transform": TRANSFORM.format(fit=self.fit),
            "autoencoder": self.autoencoder,
            **self.setting,
        }

    def _masks(self, photo: Photo) -> Key:
        """What a photo's masks depend on besides its file."""
        if not self.masked:
            return {}
        return {"masks": list(masks.KINDS), "boxes": [list(box) for box in photo.boxes()]}

    def prompt(self, prompt: str, chunks: int = 1) -> Key:
        """The key of a prompt's embeddings."""
        return {
            **({"clip_skip": self.clip_skip} if self.clip_skip else {}),
            **({"chunks": chunks} if chunks > 1 else {}),
            "kind": PROMPTS,
            "text": prompt,
            "text_encoders": self.text_encoders,
            **self.setting,
        }


def keys_of(
    base: Base,
    precision: str,
    device: str,
    sizes: Mapping[str, tuple[int, int]],
    fit: Fit = "pad",
    clip_skip: int = 0,
) -> Keys:
    """The keys of ``base``, told from its files; ``device`` is a type of `torch.device`."""
    encoders = FAMILIES[base.family].text_encoders
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return Keys(
        autoencoder=bases.components_digest(base, ["vae"]),
        text_encoders=bases.components_digest(base, [*encoders, *tokenizers]),
        setting={"schema": SCHEMA, "precision": precision, "device": device, "versions": versions},
        sizes=sizes,
        fit=fit,
        masked=base.inpaints,
        clip_skip=clip_skip,
    )


MANY = 8
"""Entries to make from which on a progress bar is shown."""
MANY_CHECKED = 5000
"""Likewise entries to check."""


def gather(
    folder: Path | None,
    keys: Sequence[Key],
    make: Callable[[int], Tensors],
    accelerator: Accelerator,
    *,
    title: str,
    unit: str,
    least: int = MANY,
) -> Sequence[Tensors]:
    """An entry for each of ``keys``, in order; ``make`` gives the one of a row.

    Called by every process. Without a ``folder`` each makes everything and holds it in memory. With one they
    share the work: each entry is there once it is made, whatever happens to the others, and is read again
    whenever it is asked for. Progress is shown in ``unit`` where ``least`` or more are to be made.
    """
    show, rows = accelerator.is_main_process, range(len(keys))
    if folder is None:
        with bar(title, len(keys), unit=unit, show=show and len(keys) >= max(least, 1)) as advance:
            return [_counted(make(row), advance) for row in rows]
    work = _Work(folder=folder, keys=keys, make=make, title=title, unit=unit, least=least, show=show)
    process, processes = accelerator.process_index, accelerator.num_processes
    work.fill(rows[process::processes])
    accelerator.wait_for_everyone()
    # Those that only other machines have seen: there may be no common disk.
    near = _neighbours(folder, accelerator)
    far = [row for row in rows if row % processes not in near]
    work.fill(far[near.index(process) :: len(near)])
    accelerator.wait_for_everyone()
    _report(work.damaged, accelerator)
    paths = [str(path_of(folder, key)) for key in keys]
    return Lazy(len(paths), lambda row: read(Path(paths[row])))


def _counted(made: Tensors, advance: Callable[[int], None]) -> Tensors:
    advance(1)
    return made


def _neighbours(folder: Path, accelerator: Accelerator) -> list[int]:
    """The processes to which ``folder`` is the very same, this one among them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = folder.stat()
    own = (platform.node(), found.st_dev, found.st_ino)
    places = gather_object([own]) if accelerator.num_processes > 1 else [own]
    return [process for process, place in enumerate(places) if place == own]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What one process does for the entries."""

    folder: Path
    keys: Sequence[Key]
    make: Callable[[int], Tensors]
    title: str
    unit: str
    least: int
    show: bool
    damaged: list[str] = field(default_factory=list)

    def fill(self, rows: Sequence[int]) -> None:
        """See to it that the entries of ``rows`` are there, and whole."""
        missing, show = [], self.show and len(rows) >= MANY_CHECKED
        with bar("checking the cache", len(rows), unit=self.unit, show=show) as advance:
            for row in rows:
                if not self._is_there(row):
                    missing.append(row)
                advance(1)
        show = self.show and len(missing) >= max(self.least, 1)
        with bar(self.title, len(missing), unit=self.unit, show=show) as advance:
            for row in missing:
                key = self.keys[row]
                write(path_of(self.folder, key), key, self.make(row))
                advance(1)

    def _is_there(self, row: int) -> bool:
        key = self.keys[row]
        try:
            return is_there(path_of(self.folder, key), key)
        except DamagedError as error:
            self.damaged.append(str(error))
            return False


def _report(damaged: Sequence[str], accelerator: Accelerator) -> None:
    """One line about the damaged entries that all processes met."""
    total = int(accelerator.reduce(torch.tensor(len(damaged), device=accelerator.device), "sum"))
    if total:
        example = f" ({damaged[0]})" if damaged else ""
        console = Terminal(quiet=not accelerator.is_main_process)
        say(console, f"cache     damaged entries made again: {total}{example}")
