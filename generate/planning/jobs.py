"""What is to be sampled: one `Job` a class, with its count, base, adapters, plan and shard header."""

import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from generate.config import Generate
from generate.planning import contexts, init_images, prompts, repainting, steering, trained
from generate.planning.contexts import ClassContexts
from generate.planning.plan import ClassPlan
from generate.planning.ranges import Range
from generate.planning.settings import Settings, require_shards, resolve
from generate.planning.steering import Steering
from generate.planning.trained import Trained
from generate.sampling import loras
from generate.sampling.loras import Blend
from orchard import software
from orchard.adapters import layers
from orchard.bases import bases, prompt_embeds, safety_checker
from orchard.bases.bases import Base
from orchard.bases.prompt_embeds import STOCK, Reading
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.files import atomic
from orchard.generators.files import NO_SCHEDULER
from orchard.images.images import DECODING, TRAIN
from orchard.prompt_template import DEFAULT, fill
from orchard.shards import ShardHeader


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """A base with adapters in it, and how it samples."""

    base: Base
    blend: Blend
    settings: Settings

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""
        return self.settings.resolution

    @property
    def name(self) -> str:
        """How a plan calls it."""
        return f"base {self.base.title}, LoRA {self.blend.name}"

    @property
    def data(self) -> list[str]:
        """Names of the real sets that all of it was trained on; empty ones where it does not say."""
        return [provenance.data if provenance else "" for provenance in self.blend.provenances]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One class to sample."""

    source: Diffusion | Trained
    """What has to be loaded and set; classes of equal ones are sampled with one pipeline."""
    plan: ClassPlan
    header: ShardHeader

    @property
    def label(self) -> str:
        """The class."""
        return self.plan.label


@dataclass(frozen=True, kw_only=True)
class ClassSource:
    """A class and what it is to be sampled from."""

    label: str
    names: tuple[str, ...]
    """The whole class list."""
    base: Base
    blend: Blend
    own: str
    """The template that the adapter was trained with."""
    contexts: ClassContexts | None = None
    """What it is asked for besides the class."""


def jobs(config: Generate, precision: str, environment: Mapping[str, str] = {}) -> list[Job]:
    """Resolve adapters, bases, classes, prompts and counts without loading a model.

    ``environment`` is what the rows record of the machine (`pipeline.environment`).

    Raises:
        UserError: a file or class that is not there, a LoRA made for another base, a class twice, a prompt
            that cannot be filled in, a scheduler that is not for the base.
    """
    made_with = [{**software.versions(), **environment}] if environment else []
    if config.generator:
        return _of_generator(config, trained.read(config.generator), precision, made_with)
    vary = prompts.vocabularies(config.vary)
    mode = contexts.mode(config, vary)
    placeholder = {} if mode == "none" else {contexts.NAME: ("",)}
    prompts.require_valid(_templates(config, DEFAULT, [*vary, *placeholder]), {**vary, **placeholder})
    blends = loras.blends(config)
    chosen = [one for blend in blends for one in _classes(config, blend)]
    _require_one_list(blends, chosen)
    labels = [one.label for one in chosen]
    twice = sorted(label for label, times in Counter(labels).items() if times > 1)
    if twice:
        raise UserError(
            f"--lora: class {', '.join(twice)} is sampled by two adapters; give one of them, or --fuse"
        )
    _require_known(config, labels, [name for blend in blends for name in loras.labels_of(blend)], "adapters'")
    found = contexts.resolve(config, mode, {one.label: one.blend for one in chosen}, blends)
    chosen = [replace(one, contexts=found.get(one.label)) for one in chosen]
    rows = rows_of(config, labels)
    init_images.training_images.cache_clear()  # files may have come since an earlier call
    return [_job(config, one, rows[one.label], precision, made_with) for one in chosen]


def _require_known(config: Generate, labels: Sequence[str], known: Sequence[str], whose: str) -> None:
    """Raise `UserError` naming those of ``--classes`` that are not sampled."""
    missing = sorted(set(config.classes) - set(labels))
    if missing:
        raise UserError(f"--classes {' '.join(missing)}: not among the {whose} classes: {', '.join(known)}")


def _require_one_list(blends: Sequence[Blend], chosen: Sequence[ClassSource]) -> None:
    """Raise `UserError` when adapters list other classes, or in another order: labels are places in one."""
    adapters = [one.adapter for blend in blends for one in blend.parts]
    lists = [(one.path.name, tuple(one.provenance.all_classes)) for one in adapters if one.provenance]
    lists += [(one.blend.name, one.names) for one in chosen]
    for name, classes in lists:
        first, wanted = lists[0]
        if classes != wanted:
            raise UserError(
                f"--lora: {first} has the class list {', '.join(wanted)}, {name} has {', '.join(classes)}; a "
                "set has one list, so give adapters of one real set, or sample into several --output"
            )


def _templates(config: Generate, own: str, names: Sequence[str]) -> tuple[str, ...]:
    """The templates given, else the adapter's own with a phrase of each vocabulary in ``names`` behind it."""
    return config.prompt or (prompts.with_phrases(own, names) if names else own,)


def _classes(config: Generate, blend: Blend) -> list[ClassSource]:
    """The classes that are sampled from a blend; those of a LoRA that does not say have to be given."""
    provenance = next((one for one in blend.provenances if one is not None), None)
    named = config.base or (provenance.base if provenance else "mini")
    base = blend.base or bases.resolve(named, inpainting=True)
    repainting.require_base(
        base, "repaint" if config.repaint else "image_guidance" if config.image_guidance else ""
    )
    layers.require_loadable(base)
    loras.require_fit(blend, base)
    if provenance is None:
        if blend.parts and not config.classes:
            name = blend.parts[0].adapter.path.name
            raise UserError(f"--lora {name}: does not say its class; pass --classes NAME, a class of --data")
        names = sources.load(config.data, config.classes).classes
        labels: Sequence[str] = config.classes or names
    else:
        names = tuple(provenance.all_classes)
        wanted = config.classes or names
        labels = [name for name in loras.labels_of(blend) if name in names and name in wanted]
    own = provenance.prompt if provenance else DEFAULT
    return [ClassSource(label=label, names=names, base=base, blend=blend, own=own) for label in labels]


def _job(
    config: Generate, one: ClassSource, count: int, precision: str, made_with: list[dict[str, str]]
) -> Job:
    atomic.require_distinct_files(one.names)
    settings = resolve(config, one.base)
    prompts_of = functools.partial(_prompts, config, one)
    steered = steering.resolve(config, one.base, settings, one.label, one.names, prompts_of)
    guide = init_images.load(config.image_guidance, one.label, config.seed) if config.image_guidance else None
    repaints = repainting.load(config, one.label, one.base.resolution) if config.repaint else None
    guide = repaints.guides if repaints else guide
    if guide:
        guide.require_whole(count)
    plan = ClassPlan(
        label=one.label,
        seed=config.seed,
        count=count,
        prompts=prompts_of(one.label),
        guides=guide,
        repaints=repaints,
        candidates=config.candidates,
        steering=steered,
    )
    settings = replace(settings, reading=_reading(one, plan))
    arguments = _arguments(config, one, plan, settings) | {"precision": precision}
    seen = one.blend.trained_on
    if guide and seen is not None:
        seen = sorted({*seen, *(photo.sha256 for photo in guide.photos)})
    header = ShardHeader(
        label=one.label,
        classes=list(one.names),
        arguments=arguments,
        trained_on=seen,
        versions=software.versions(),
        made_with=made_with,
        count=count,
    )
    return Job(source=Diffusion(base=one.base, blend=one.blend, settings=settings), plan=plan, header=header)


def _of_generator(
    config: Generate, source: Trained, precision: str, made_with: list[dict[str, str]]
) -> list[Job]:
    """The jobs of a GAN or VAE, whose prompt is the class."""
    record = source.record
    labels = [name for name in record.classes if name in (config.classes or record.classes)]
    _require_known(config, labels, record.classes, "generator's")
    atomic.require_distinct_files(record.all_classes)
    require_shards(config.shard_size, record.size)
    arguments = {
        "base": record.kind,
        "base_digest": source.digest,
        "lora": source.digest,
        "steps": 1,
        "guidance": 1.0,
        "scheduler": NO_SCHEDULER,
        "seed": config.seed,
        "resolution": record.size,
        "shard_size": config.shard_size,
        "precision": precision,
        **({"candidates": config.candidates} if config.candidates > 1 else {}),
    }
    found = []
    for label, count in rows_of(config, labels).items():
        plan = ClassPlan(
            label=label,
            seed=config.seed,
            count=count,
            prompts=(label,),
            steering=Steering(guidance=Range(1.0, 1.0)),
            candidates=config.candidates,
        )
        header = ShardHeader(
            label=label,
            classes=list(record.all_classes),
            arguments={**arguments, "prompt": label},
            trained_on=list(record.trained_on),
            versions=software.versions(),
            made_with=made_with,
            count=count,
        )
        found.append(Job(source=source, plan=plan, header=header))
    return found


def _reading(one: ClassSource, plan: ClassPlan) -> Reading:
    """How the prompts of a class are read, what its rows are led away from too."""
    said = {*plan.prompts, plan.steering.negative, *itertools.chain(*plan.steering.others)}
    chunks = prompt_embeds.chunks(one.base, said, one.blend.words)
    return Reading(clip_skip=loras.clip_skip(one.blend), chunks=chunks)


def _prompts(config: Generate, one: ClassSource, label: str) -> Sequence[str]:
    """The prompts of class ``label`` as those of the source's own class."""
    vary = _vocabularies(config, one)
    called = one.contexts.names if one.contexts and label == one.label else ()
    try:
        word = one.blend.word(label)
        return prompts.render(_templates(config, one.own, [*vary]), vary, word, config.seed, called)
    except UserError as error:
        if config.prompt:
            raise
        reason = str(error).replace("--prompt", f"--lora {one.blend.name}: its own prompt", 1)
        raise UserError(f"{reason}; give a --prompt instead") from None


def _vocabularies(config: Generate, one: ClassSource) -> dict[str, tuple[str, ...]]:
    """Those of the options, and the contexts."""
    said = {contexts.NAME: one.contexts.phrases} if one.contexts else {}
    return prompts.vocabularies(config.vary) | said


def _arguments(config: Generate, one: ClassSource, plan: ClassPlan, settings: Settings) -> dict[str, Any]:
    """Everything that decides the pixels of a row; what is not in use is left out."""
    word = one.blend.word(one.label)
    found: dict[str, Any] = {
        "base": one.base.public_name,
        "base_digest": one.base.digest,
        **one.blend.arguments(),
        "prompt": " | ".join(fill(template, word) for template in config.prompt or (one.own,)),
        "steps": settings.steps,
        "guidance": plan.steering.guidance.argument,
        "scheduler": settings.scheduler,
        "seed": config.seed,
        "resolution": one.base.resolution,
        "shard_size": config.shard_size,
    }
    if config.vary:
        found["vary"] = list(config.vary)
    if one.contexts:
        found |= one.contexts.arguments()
    if prompts.mixed(config.prompt, _vocabularies(config, one)):
        found["phrase_order"] = prompts.ORDER
    if config.compile:
        found["compile"] = True
    found |= dict(asdict(settings.reading).items() - asdict(STOCK).items())
    if safety_checker.has(one.base):
        found["safety_checker"] = config.safety_checker
    if plan.repaints:
        found |= {**plan.repaints.arguments(config), "decoding": DECODING}
    elif plan.guides:
        found |= {"image_guidance": plan.guides.digest(), "decoding": DECODING}
    if plan.steering.strength:
        found["strength"] = plan.steering.strength.argument
    if plan.steering.negative:
        found["negative_prompt"] = plan.steering.negative
    if config.candidates > 1:
        found["candidates"] = config.candidates
    if config.contrast:
        found["contrast"] = config.contrast
    return found


USUAL, MOST_FILES = 200, 10**5
LARGEST: Literal["largest"] = "largest"


def rows_of(config: Generate, labels: Sequence[str]) -> dict[str, int]:
    """Rows per class, by ``--count``, ``--total`` or ``--balance``; more asked for never means fewer rows.

    Raises:
        UserError: ``--balance`` finds nothing to fill, the real set lacks a class, or there would be more
            files than a folder takes well.
    """
    found = _rows_of(config, labels)
    files = -(-max(found.values()) // config.shard_size)
    if files > MOST_FILES:
        raise UserError(
            f"--shard_size {config.shard_size}: makes {files} files per class; give a larger number"
        )
    return found


def _rows_of(config: Generate, labels: Sequence[str]) -> dict[str, int]:
    if config.balance is not None:
        return _filling(config, labels)
    if config.total:
        each, left = divmod(config.total, len(labels))
        return {label: each + (place < left) for place, label in enumerate(labels)}
    return dict.fromkeys(labels, config.count or USUAL)


def _filling(config: Generate, labels: Sequence[str]) -> dict[str, int]:
    """What each class lacks of the largest one, or of the stated number; training images alone count."""
    there = sources.load(config.data).of(TRAIN).counts()
    unknown = [label for label in labels if label not in there]
    if unknown:
        raise UserError(
            f"--balance: --data {config.data} has no class {', '.join(unknown)}; name the real set"
        )
    goal = max(there.values()) if config.balance == LARGEST else int(config.balance or 0)
    lacking = {label: max(goal - there[label], 0) for label in labels}
    if not any(lacking.values()):
        have = ", ".join(f"{label} {there[label]}" for label in labels)
        raise UserError(f"--balance {config.balance}: nothing to fill, there is {have}; give a larger number")
    return lacking
