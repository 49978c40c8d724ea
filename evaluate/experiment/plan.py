"""Which classifiers are trained: the arms that the options ask for, each over its seeds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import product

from classify.image_sets import parts
from evaluate.config import Evaluate, parse_shots
from evaluate.experiment.arms import Arm, ExistingSet, Run, Seeds, Source, seeds_of
from evaluate.experiment.image_sets import Sets
from evaluate.experiment.mixtures import Mixture, draw, mix, parse, require_enough
from evaluate.experiment.own_generator import OwnGenerator
from evaluate.generators import GENERATORS, GIVEN, NONE, chosen_among, was_chosen
from evaluate.records.records import REAL_PART, WITHOUT
from orchard.cli import cli
from orchard.errors import UserError, listed
from orchard.images import splits
from orchard.images.images import TEST, TRAIN, ImageSet, Photo


def plan(config: Evaluate, sets: Sets, shares: Sequence[float], precision: str) -> list[Run]:
    """Every run of the sweep, seed after seed, so that a stopped sweep has all arms of its first seeds.

    Raises:
        UserError: a class is too small for an arm, or there are too few synthetic images.
    """
    if config.shots:
        runs = list(_low_shot(config, sets, precision))
    elif config.folds:
        runs = list(_cross_validation(config, sets, _with_none(config, shares), precision))
    else:
        runs = list(_ratios(config, sets, _with_none(config, shares), precision))
    if not runs or (config.search and not any(run.chooses for run in runs)):
        raise UserError(
            f"--ratios {' '.join(config.ratios)}: leaves no arm to run by --generators "
            f"{' '.join(config.arms_by)}; give shares of real images between 0 and 1"
        )
    for run in runs:
        _require_choice(config, run)
    # The sets without a screen are as large as the one with all of them.
    used = [run.needed for run in runs if any(_is_given(source, sets) for source in run.sources)]
    if used:
        require_enough(used, sets.synthetic.counts(), config.synthetic)
    return runs


def _with_none(config: Evaluate, shares: Sequence[float]) -> Sequence[float]:
    """Where all real images stay, they alone are what an arm without synthetic images has."""
    alone = config.laid_out == "augment" and NONE in config.arms_by and 1.0 not in shares
    return [1.0, *shares] if alone else shares


def _require_choice(config: Evaluate, run: Run) -> None:
    """Raise `UserError` where a class has no image to be scored while another is trained on."""
    contents = Counter(label for label, _ in {(photo.label, photo.sha256) for photo in run.real})
    lone = sorted(name for name, count in contents.items() if count < 2)
    cli.check(
        not run.chooses or not lone,
        f"{_chooser(config)}: {run.arm.title} has one real image of {listed(lone)}, none to choose by; give "
        "more real images or leave it out",
    )


def _chooser(config: Evaluate) -> str:
    """The option by which arms choose."""
    if config.search:
        return "--search"
    return "--generators auto" if config.chooser else "--mixing auto"


def _is_given(source: Source, sets: Sets) -> bool:
    return isinstance(source, ExistingSet) and source.found is sets.synthetic


def _ratios(config: Evaluate, sets: Sets, shares: Sequence[float], precision: str) -> Iterator[Run]:
    first = seeds_of(config)[0]
    _, apart = parts(sets.train, config.validation, first.subset)
    count = _most(config, sets.train.counts(), shares, config.total) + _most_mixed(config, apart)
    sources = _sources(config, sets, sets.train, sets.test, first, count, precision)
    for one in seeds_of(config):
        seeds = replace(one, generator=first.generator)
        rest, held_out = parts(sets.train, config.validation, seeds.subset)
        total = config.total if config.total != len(rest) else 0
        for share in shares:
            mixture = mix(config.laid_out, share, rest.counts(), total)
            for name, taken, generator in _with_controls(config, sets, mixture):
                real = draw(rest.photos, taken.real, "real", seeds.subset)
                arm = _arm(config, name, taken, generator, total=total)
                yield _run(config, arm, seeds, real, held_out, sets.test, sources)
        if "strong" in config.controls:
            strong = replace(config, augmentation="strong")
            arm = _arm(config, "strong", mix(config.laid_out, 1.0, rest.counts()), NONE)
            yield _run(strong, arm, seeds, rest.photos, held_out, sets.test, {})


def _most(config: Evaluate, real: Mapping[str, int], shares: Sequence[float], total: int = 0) -> int:
    """Synthetic images of a class in a mixture, at most.

    As many as any usual share needs, so that an arm's images do not depend on the other shares asked for.
    """
    usual = parse(["all"], config.laid_out)[-1]
    mixtures = [mix(config.laid_out, share, real, total) for share in (usual, *shares)]
    return max(max(mixture.synthetic.values()) for mixture in mixtures)


def _by_generators(config: Evaluate, mixture: Mixture, alone: str) -> Iterator[tuple[str, Mixture, str]]:
    """A mixture by each generator that can make it, as (kind of arm, mixture, generator).

    ``alone`` is the kind of its real part alone, which `NONE` stands for in the substitute design.
    """
    kind = "fold" if config.folds else "ratio"
    if not any(mixture.synthetic.values()):
        yield kind, mixture, NONE
        return
    some_real = any(mixture.real.values())
    for generator in config.arms_by:
        if generator == NONE:
            if some_real and config.laid_out == "substitute":
                yield alone, replace(mixture, synthetic=dict.fromkeys(mixture.synthetic, 0)), NONE
        elif generator != config.chooser or some_real:
            yield kind, mixture, generator


def _with_controls(config: Evaluate, sets: Sets, mixture: Mixture) -> Iterator[tuple[str, Mixture, str]]:
    """As `_by_generators`, then the mixture without each screen."""
    yield from _by_generators(config, mixture, REAL_PART)
    for screen in sets.unscreened:
        if any(mixture.synthetic.values()):
            yield WITHOUT + screen, mixture, GIVEN


def _low_shot(config: Evaluate, sets: Sets, precision: str) -> Iterator[Run]:
    """The same few real images by every generator, which know no others."""
    shots = parse_shots(config.shots)
    least = min(sets.train.counts().values())
    fewest = next(name for name, count in sets.train.counts().items() if count == least)
    cli.check(
        shots[-1] <= least,
        f"--shots {shots[-1]}: class {fewest} has {least} training images; give {least} or fewer",
    )
    cli.check(
        shots[0] > 1 or config.validation == "none",
        f"--shots 1: leaves no real image to validate on; leave --validation {config.validation} out",
    )
    cli.check(
        shots[0] > 1 or not (config.chooser or config.mixing == "auto"),
        f"--shots 1: leaves no real image to choose by; give 2 or more, or leave {_chooser(config)} out",
    )
    for seeds in seeds_of(config):
        for count in shots:
            counts = dict.fromkeys(sets.train.classes, count)
            own = sets.train.keep(draw(sets.train.photos, counts, "shots", seeds.subset))
            rest, held_out = parts(own, config.validation, seeds.subset)
            left = [photo for photo in sets.train.photos if photo.sha256 not in own.hashes()]
            tested = sets.test.keep((*sets.test.photos, *(left if config.left_over else ())))
            made = config.arm_count + _most_mixed(config, held_out)
            sources = _sources(config, sets, rest, sets.test, seeds, made, precision)
            for generator in config.arms_by:
                mixture = _added(rest.counts(), 0 if generator == NONE else config.arm_count)
                arm = _arm(config, "shots", mixture, generator, shots=count)
                yield _run(config, arm, seeds, rest.photos, held_out, tested, sources)


def _most_mixed(config: Evaluate, held_out: ImageSet) -> int:
    """Synthetic images that join the validation images of a class, at most."""
    return max(held_out.counts().values()) if config.validation == "mixed" else 0


def _added(real: Mapping[str, int], synthetic: int) -> Mixture:
    """All real images and ``synthetic`` ones of each class."""
    total = sum(real.values())
    ratio = total / (total + synthetic * len(real))
    return Mixture(ratio=ratio, real=dict(real), synthetic=dict.fromkeys(real, synthetic))


def _cross_validation(config: Evaluate, sets: Sets, shares: Sequence[float], precision: str) -> Iterator[Run]:
    """Every real image is scored once per repeat, by classifiers and generators that have not seen it."""
    everything = sets.train.keep((*sets.train.photos, *sets.test.photos))
    for repeat in range(config.repeats):
        seeds = _of_repeat(config, repeat)
        for fold, apart in enumerate(splits.folds(everything, config.folds, "folds", seeds[0].subset)):
            train, test = _divided(everything, apart)
            rest, held_out = parts(train, config.validation, seeds[0].subset)
            count = _most(config, rest.counts(), shares) + _most_mixed(config, held_out)
            sources = _sources(config, sets, rest, test, seeds[0], count, precision)
            mixtures = [mix(config.laid_out, share, rest.counts()) for share in shares]
            by = [one for mixture in mixtures for one in _by_generators(config, mixture, "fold")]
            for (name, mixture, generator), one in product(by, seeds):
                # The same subset seed comes in several repeats.
                salt = ("real", one.subset, *([repeat] if repeat else []))
                real = draw(rest.photos, mixture.real, *salt)
                arm = _arm(config, name, mixture, generator, fold=fold, repeat=repeat)
                yield _run(config, arm, one, real, held_out, test, sources)


def division(config: Evaluate) -> dict[str, int] | None:
    """What decides which images a fold holds and what its generators make; None without folds."""
    first = seeds_of(config)[0]
    numbers = {"number": config.folds, "subset_seed": first.subset, "generator_seed": first.generator}
    return numbers if config.folds else None


def _of_repeat(config: Evaluate, repeat: int) -> list[Seeds]:
    """Seeds of a fold's runs: subset and generator are one further each repeat, and the generator is one."""
    runs = seeds_of(config)
    generator = runs[0].generator + repeat
    return [replace(one, subset=one.subset + repeat, generator=generator) for one in runs]


def _divided(everything: ImageSet, apart: Set[str]) -> tuple[ImageSet, ImageSet]:
    """The images outside and inside of a fold, as a training and a test split."""
    moved = [replace(photo, split=TEST if photo.sha256 in apart else TRAIN) for photo in everything.photos]
    divided = everything.keep(moved)
    return divided.of(TRAIN), divided.of(TEST)


def _sources(
    config: Evaluate, sets: Sets, real: ImageSet, test: ImageSet, seeds: Seeds, count: int, precision: str
) -> dict[str, Source]:
    """Generator -> its images for arms that are made of ``real``."""
    one_a_class = {photo.label: photo for photo in reversed(test.photos)}
    found: dict[str, Source] = {GIVEN: ExistingSet(found=sets.synthetic)}
    found |= {WITHOUT + name: ExistingSet(found=images) for name, images in sets.unscreened.items()}
    for name in config.makers:
        if name == GIVEN:
            continue
        assert sets.base is not None
        found[name] = OwnGenerator(
            root=config.output,
            generator=GENERATORS[name],
            real=real,
            held_out=test.keep(one_a_class.values()),
            base=sets.base,
            steps=config.arm_steps,
            prompts=config.arm_prompt,
            seed=seeds.generator,
            count=count,
            flip=config.flip,
            precision=precision,
        )
    return found


def _arm(config: Evaluate, name: str, mixture: Mixture, generator: str, **places: int) -> Arm:
    """An arm of one source alone has nothing to mix."""
    mixed = any(mixture.synthetic.values()) and any(mixture.real.values())
    return Arm(
        name=name,
        design="augment" if name == "shots" else config.laid_out,
        mixture=mixture,
        generator=chosen_among(generator, config.makers) if generator == config.chooser else generator,
        mixing=config.mixing if mixed else "union",
        real_weight=config.real_weight,
        **places,
    )


def _run(
    config: Evaluate,
    arm: Arm,
    seeds: Seeds,
    real: Sequence[Photo],
    held_out: ImageSet,
    test: ImageSet,
    sources: Mapping[str, Source],
) -> Run:
    chooses = was_chosen(arm.generator)
    return Run(
        arm=arm,
        seeds=seeds,
        real=real,
        held_out=held_out.photos,
        test=test.photos,
        source=sources.get(arm.name if arm.name.startswith(WITHOUT) else arm.generator),
        options=config,
        candidates={name: sources[name] for name in config.makers} if chooses else {},
    )
