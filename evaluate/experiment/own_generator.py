"""An arm's own synthetic images: made from its real images alone, by the commands a user has.

What images or adapters depend on names a folder, so equal arms share it and a sweep that goes on finds it.
"""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from evaluate.experiment import leaks
from evaluate.experiment.child_process import call, environment
from evaluate.generators import ARM_CLASSIFIER, ARM_PHOTOS, Generator
from orchard import shards, software
from orchard.adapters import adapter
from orchard.bases.bases import Base
from orchard.datasets import folders
from orchard.errors import UserError
from orchard.files import atomic, checked_json, lock
from orchard.images.framing import Fit
from orchard.images.images import DECODING, ImageSet, Photo, sha256

FOLDER, PHOTOS, NOTE, SECONDS = "arms", "photos", "arm.json", "seconds.json"
SAMPLE, CLASSIFY = "generate", "classify"
COMMANDS = "generators"
"""What an arm notes of the two commands, besides the options that it gives them."""
LARGEST_BATCH, LARGEST_MODEL_BATCH = 16, 32
"""Of photos of one class for an adapter, of all classes for a GAN or VAE."""
FROM_NOTHING = 10
"""Steps of a GAN or VAE for each one of an adapter."""
FIT: Fit = "pad"
"""The adapters learn from what the classifiers see."""
KEPT_LINES = 4
LIBRARIES = ("orchard", "torch", "diffusers", "transformers", "peft")
"""Those whose version may change what the two commands make of the same options."""
DEFAULTS = """
import json, sys
from dataclasses import asdict
from finetune.config import TrainLora
from generate.config import Generate
from generate.planning import repainting, settings, steering
from orchard.bases import bases, usual
from orchard.cli import cli
options = [cli.describe(TrainLora()), cli.describe(Generate())]
base = bases.resolve(sys.argv[1])
resolved = settings.resolve(Generate(), base)
led = steering.resolve(Generate(), base, resolved, "", ("",), lambda label: ())
modes = {name: [asdict(one) for one in passes] for name, passes in repainting.MODES.items()}
repaint = {"guidance": repainting.GUIDANCE, "modes": modes}
tuned = {method: asdict(usual.training(base, method)) for method in ("lora", *usual.RATES)}
print(json.dumps([*options, asdict(resolved), asdict(led), repaint, tuned], sort_keys=True))
"""
"""Prints every default of the two commands, those that hang on the base resolved."""
MODEL_DEFAULTS = """
import json, sys
from finetune.generators.config import TrainGan, TrainVae
from generate.config import Generate
from orchard.cli import cli
trainer = {"gan": TrainGan, "vae": TrainVae}[sys.argv[1]]
print(json.dumps([cli.describe(trainer()), cli.describe(Generate())], sort_keys=True))
"""
"""The same for a GAN or VAE."""


class TuningError(UserError):
    """An arm's own images could not be made; all runs that need them are lost."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        """Whether a command refused to, rather than broke."""


@dataclass(frozen=True, kw_only=True)
class OwnGenerator:
    """The synthetic images of one arm, made when they are first asked for."""

    root: Path
    """The experiment's folder; the arm's own is ``arms/KEY`` in it."""
    generator: Generator
    real: ImageSet
    """The arm's real images: whatever makes its own sees no others."""
    held_out: ImageSet
    """Images that the arm is not trained on: they keep finetune from drawing a test split of its own."""
    base: Base
    steps: int
    """Optimiser steps an adapter."""
    prompts: Sequence[str]
    """Templates to sample with; empty for the adapters' own."""
    seed: int
    count: int
    """Images per class; not part of the key, since more rows begin with the same ones."""
    flip: bool
    precision: str
    weight: float = 1.0
    """Of the adapters."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything that the images depend on, but for their number."""
        found: dict[str, Any] = {
            "classes": list(self.real.classes),
            **self._begun_with,
            "seed": self.seed,
            "precision": self.precision,
            COMMANDS: made_by(self.generator, self.base),
            **({"prompts": list(self.prompts)} if self.prompts else {}),
        }
        if self.generator.sees_photos:
            found |= {
                "photos": self.real.digest(),
                "decoding": DECODING,
                "captions": captions(self.real.photos),
                "steps": self._steps,
                "batch_size": self.batch_size,
                "fit": FIT,
                "flip": self.flip,
            }
        if self.weight != 1:
            found["weight"] = self.weight
        if self.generator.sees_boxes:
            found["boxes"] = self.real.boxes_digest()
        asked = {"tuning": self.generator.tuning, "sampling": self.generator.sampling}
        return found | {name: words and list(words) for name, words in asked.items() if words != ()}

    @property
    def _begun_with(self) -> dict[str, Any]:
        if self.generator.model:
            return {"model": self.generator.model, "size": self.base.resolution}
        return {"base": self.base.name, "base_digest": self.base.digest}

    @property
    def _steps(self) -> int:
        return self.steps * (FROM_NOTHING if self.generator.model else 1)

    @property
    def batch_size(self) -> int:
        """No more than the images of an adapter's largest class, or of all, which would come twice in it."""
        if self.generator.model:
            return min(LARGEST_MODEL_BATCH, len(self.real))
        return min(LARGEST_BATCH, max(self.real.counts().values()))

    @cached_property
    def folder(self) -> Path:
        """Where adapters and shards lie."""
        return self.root / FOLDER / sha256(json.dumps(self.arguments, sort_keys=True).encode())[:16]

    @cached_property
    def adapters(self) -> Path | None:
        """Where its adapters lie: one folder for all generators of equal ``tuning``; None without any."""
        if self.generator.tuning is None:
            return None
        return self._tuned.folder / "adapters"

    @property
    def _tuned(self) -> "OwnGenerator":
        """The one of equal ``tuning`` that samples with no options of its own."""
        return replace(self, generator=replace(self.generator, sampling=()), weight=1.0)

    @property
    def name(self) -> str:
        """The shards' folder."""
        return str(self.folder / "shards")

    @property
    def together(self) -> str:
        """The same for all that wait for each other's adapters or images."""
        return str(self.adapters or self.folder)

    def images(self) -> ImageSet:
        """The synthetic set, ``count`` images per class; tuned and sampled first where it is not there.

        Raises:
            TuningError: a command failed.
            UserError: something of it has seen other images than the arm's.
        """
        if not self.is_there:
            self._make()
        return self.read(self.folder / "shards")

    def without(self, photos: Set[str]) -> "OwnGenerator":
        """The same of the arm's other real images."""
        return replace(self, real=self.real.keep(one for one in self.real.photos if one.sha256 not in photos))

    def asked(self, sampling: Sequence[str], weight: float) -> "OwnGenerator":
        """The same with further options of generate, and its adapters at a weight."""
        generator = replace(self.generator, sampling=(*self.generator.sampling, *sampling))
        return replace(self, generator=generator, weight=weight)

    def read(self, folder: Path) -> ImageSet:
        """``count`` images a class of the shards there; raises `UserError` where they saw other images."""
        found = shards.read(folder)
        allowed = self.real.hashes() if self.generator.sees_photos else frozenset()
        leaks.require_own(str(folder), shards.read_manifest(folder), allowed)
        return found.keep(_first(found.photos, self.count))

    @property
    def is_there(self) -> bool:
        """Whether nothing is left to make."""
        return self._is_whole(self.folder)

    def made(self) -> Path | None:
        """The shards that are there, else those that another version made; to be shown, not trained on."""
        others = [path.parent for path in sorted(self.root.glob(f"{FOLDER}/*/{NOTE}")) if self._is_of(path)]
        return next((path / "shards" for path in (self.folder, *others) if self._is_whole(path)), None)

    def _is_whole(self, folder: Path) -> bool:
        if not (folder / "shards" / shards.MANIFEST).is_file():
            return False
        rows = shards.read_manifest(folder / "shards")["rows"]
        return all(rows.get(name, 0) >= self.count for name in self.real.classes)

    def _is_of(self, note: Path) -> bool:
        """Whether what a folder notes differs from this arm in versions and defaults alone."""
        try:
            there = checked_json.table({}, checked_json.parse(checked_json.read(note)))
        except (OSError, ValueError):
            return False
        return {**there, COMMANDS: None} == {**self.arguments, COMMANDS: None}

    def seconds(self) -> float | None:
        """What tuning and sampling took, tries that were stopped included; None where that is not known."""
        spent = [_spent(self.folder).get(SAMPLE)]
        spent += [self.seconds_to_train()] if self.adapters else []
        known = [seconds for seconds in spent if seconds is not None]
        return sum(known) if len(known) == len(spent) else None

    def seconds_to_train(self) -> float | None:
        """What tuning took; None where that is not known, or nothing was trained."""
        return _spent(self._tuned.folder).get(self.generator.trainer) if self.adapters else None

    def _make(self) -> None:
        files = self._tuned.tuned() if self.adapters else ()
        at = f":{self.weight:g}" if self.weight != 1 else ""
        option = "--generator" if self.generator.model else "--lora"
        source = (option, *(f"{file}{at}" for file in files)) if files else ("--base", self.base.name)
        with self._alone() as photos:
            if self.is_there:  # another process had its turn first
                return
            if ARM_CLASSIFIER in self.generator.sampling:
                self._call(CLASSIFY, *self._classify_options(photos))
            # A screen that compares with real images takes them from there, too.
            self._call(SAMPLE, *source, "--data", photos, *self._generate_options(photos))

    def tuned(self) -> list[Path]:
        """The files of its adapters, trained first where one is missing."""
        adapters = self.folder / "adapters"
        if not all(path.exists() for path in self._tuned_files(adapters)):
            with self._alone() as photos:
                self._call(self.generator.trainer, *self._finetune_options(photos, adapters))
        return self._tuned_files(adapters)

    def _tuned_files(self, adapters: Path) -> list[Path]:
        names = [self.generator.model] if self.generator.model else self.real.classes
        return [adapter.written(adapters, atomic.file_name(name)) for name in names]

    @contextmanager
    def _alone(self) -> Iterator[Path]:
        """Its turn in the arm's folder; gives where its real images lie meanwhile.

        They are not kept: the ledger names them, and the real set still has them.
        """
        photos = self.folder / PHOTOS
        atomic.writable(self.folder)
        with lock.exclusive(self.folder):
            atomic.write_json(self.folder / NOTE, self.arguments)
            for output in filter(Path.is_dir, (self.folder / "adapters", self.folder / "shards")):
                with lock.exclusive(output):  # a command of an evaluate that was killed may still save there
                    pass
            shutil.rmtree(photos, ignore_errors=True)
            folders.write(photos, self.real, self.held_out)
            try:
                yield photos
            finally:
                shutil.rmtree(photos, ignore_errors=True)

    def _finetune_options(self, photos: Path, adapters: Path) -> Sequence[object]:
        # With nothing there to go on from, --resume would be refused.
        model = self.generator.model
        return [
            *("--data", photos, "--output", adapters),
            *(("--size", self.base.resolution) if model else ("--base", self.base.name)),
            *("--seed", self.seed, "--fit", FIT),
            *("--steps", self._steps, "--batch_size", self.batch_size, "--precision", self.precision),
            *(() if self.flip else ("--no_flip",)),
            *(self.generator.tuning or ()),
            *(("--resume", "latest") if adapter.begun(adapters) else ()),
        ]

    def _classify_options(self, photos: Path) -> Sequence[object]:
        return [
            *("--train", photos, "--test", photos, "--size", self.base.resolution),
            *("--output", self.folder / "classifier"),
            *("--seed", self.seed, "--precision", self.precision),
            *(() if self.flip else ("--no_flip",)),
        ]

    def _generate_options(self, photos: Path) -> Sequence[object]:
        places = {ARM_PHOTOS: photos, ARM_CLASSIFIER: self.folder / "classifier"}
        return [
            *("--output", self.folder / "shards", "--seed", self.seed, "--count", self.count),
            *("--precision", self.precision),
            *(("--prompt", *self.prompts) if self.prompts else ()),
            *(places.get(word, word) for word in self.generator.sampling),
        ]

    def _call(self, module: str, *options: object) -> None:
        """Run a command of ours to its end, what it says in ``log.txt`` of the arm's folder."""
        log, started = self.folder / "log.txt", time.monotonic()
        try:
            with atomic.written(log):
                code = call([module, *map(str, options)], log)
        finally:
            spent = _spent(self.folder)
            spent[module] = spent.get(module, 0.0) + time.monotonic() - started
            atomic.write_json(self.folder / SECONDS, spent)
        if code:
            with log.open(encoding="utf-8", errors="replace") as file:
                last = " / ".join(line.strip() for line in deque(file, KEPT_LINES) if line.strip())
            refused = code == UserError.code
            raise TuningError(f"{module} ended with code {code}: {last}; see {log}", refused=refused)


def _spent(folder: Path) -> dict[str, float]:
    """Command -> seconds that it has run for the arm there; without those of earlier versions."""
    try:
        there = checked_json.table({}, checked_json.parse(checked_json.read(folder / SECONDS)))
        return checked_json.table(dict.fromkeys(there, float), there)
    except (OSError, ValueError):
        return {}


@cache
def _defaults(script: str, name: str) -> str:
    """A hash over all defaults of the two commands: an arm's images hang on what is not asked for, too."""
    words = [sys.executable, "-c", script, name]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return sha256(done.stdout.encode())


def made_by(generator: Generator, base: Base) -> dict[str, str]:
    """What arms' images depend on besides the options that evaluate gives: all others, and versions."""
    versions, model = software.versions(), generator.model
    defaults = _defaults(MODEL_DEFAULTS, model) if model else _defaults(DEFAULTS, base.name)
    return {"defaults": defaults, **{name: versions[name] for name in LIBRARIES}}


def protocol(base: Base, steps: int, prompts: Sequence[str], photos: Sequence[Photo]) -> dict[str, Any]:
    """What all arms of an experiment have in common that bring generators tuned on some of ``photos``."""
    own = {"base": base.digest, "steps": steps, "prompts": list(prompts)}
    return {**own, "fit": FIT, "captions": captions(photos)}


def require_prompts(prompts: Sequence[str], base: Base, data: str, classes: Sequence[str]) -> None:
    """Raise `UserError` for templates that generate would refuse once everything is tuned."""
    asked = ["--base", base.name, "--data", data, "--classes", *classes, "--prompt", *prompts]
    # A folder that is not there, and stays away: what else lies in the default one has no say.
    words = [sys.executable, "-m", "generate", "--dry_run", *asked, "--output", f"{FOLDER}/prompts"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["generate refuses it"])[-1]
        raise UserError(reason.removeprefix("error: ").replace("--prompt", "--arm_prompt", 1))


def captions(photos: Sequence[Photo]) -> str:
    """A hash over the captions that come with the photos; empty where none has one."""
    lines = sorted(f"{photo.sha256}:{photo.text}" for photo in photos if photo.text)
    return sha256("\n".join(lines).encode()) if lines else ""


def _first(photos: Sequence[Photo], count: int) -> Iterator[Photo]:
    """The first ``count`` of each class: there are more where another command asked for more."""
    taken: Counter[str] = Counter()
    for photo in photos:
        taken[photo.label] += 1
        if taken[photo.label] <= count:
            yield photo
