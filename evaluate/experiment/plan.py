"""Which classifiers are trained: the arms that the options ask for, each over its seeds."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import product

from classify.image_sets import parts
from evaluate.config import Evaluate, parse_shots
from evaluate.experiment.arms import Arm, ExistingSet, Run, Seeds, Source, seeds_of
from evaluate.experiment.image_sets import Sets
from evaluate.experiment.mixtures import Mixture, draw, mix, parse, require_enough
from evaluate.experiment.own_generator import OwnGenerator
from evaluate.records.records import WITHOUT
from orchard.cli import cli
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
        runs = list(_cross_validation(config, sets, shares, precision))
    else:
        runs = list(_ratios(config, sets, shares))
    for run in runs:
        _require_choice(run)
    # The sets without a screen are as large as the one with all of them.
    for folder, images in ((config.synthetic, sets.synthetic), (config.untuned, sets.untuned)):
        used = [run.needed for run in runs if _takes(run, images)]
        if used:
            require_enough(used, images.counts(), folder)
    return runs


def _require_choice(run: Run) -> None:
    """Raise `UserError` where no image of the run's own can be held out to choose its mixing by."""
    contents = {photo.sha256 for photo in run.real}
    cli.check(
        run.arm.mixing != "auto" or len(contents) > len({photo.label for photo in run.real}),
        f"--mixing auto: {run.arm.title} has one real image of each class, none to choose by; "
        "give more real images or another --mixing",
    )


def _takes(run: Run, images: ImageSet) -> bool:
    return isinstance(run.source, ExistingSet) and run.source.found is images


def _ratios(config: Evaluate, sets: Sets, shares: Sequence[float]) -> Iterator[Run]:
    for seeds in seeds_of(config):
        rest, held_out = parts(sets.train, config.validation, seeds.subset)
        total = config.total if config.total != len(rest) else 0
        for share in shares:
            mixture = mix(config.design, share, rest.counts(), total)
            for name, taken, source in _with_controls(config, sets, mixture):
                real = draw(rest.photos, taken.real, "real", seeds.subset)
                yield _run(config, name, taken, seeds, real, held_out, sets.test, source, total=total)
        if "strong" in config.controls:
            strong = replace(config, augmentation="strong")
            mixture = mix(config.design, 1.0, rest.counts())
            yield _run(strong, "strong", mixture, seeds, rest.photos, held_out, sets.test, None)


def _with_controls(
    config: Evaluate, sets: Sets, mixture: Mixture
) -> Iterator[tuple[str, Mixture, ExistingSet | None]]:
    """A mixture, then what it is to be compared with at equal steps: name, mixture, source."""
    mixed, some_real = any(mixture.synthetic.values()), any(mixture.real.values())
    yield "ratio", mixture, ExistingSet(found=sets.synthetic) if mixed else None
    if mixed and len(sets.untuned):
        yield "untuned", mixture, ExistingSet(found=sets.untuned)
    for screen, images in sets.unscreened.items():
        if mixed:
            yield WITHOUT + screen, mixture, ExistingSet(found=images)
    # Where all real images stay, the arm with them alone is this control already.
    partly = mixed and some_real and config.design == "substitute"
    if partly and "oversampled" in config.controls:
        yield "oversampled", replace(mixture, synthetic=dict.fromkeys(mixture.synthetic, 0)), None


def _low_shot(config: Evaluate, sets: Sets, precision: str) -> Iterator[Run]:
    """Real images alone, then with synthetic ones from adapters tuned on just these."""
    shots = parse_shots(config.shots)
    least = min(sets.train.counts().values())
    cli.check(shots[-1] <= least, f"--shots {shots[-1]}: the smallest class has {least} training images")
    needs_two = config.validation != "none" or config.mixing == "auto"
    cli.check(
        shots[0] > 1 or not needs_two,
        "--shots 1: leaves no real image to validate on; use --validation none and no --mixing auto",
    )
    for seeds in seeds_of(config):
        for count in shots:
            counts = dict.fromkeys(sets.train.classes, count)
            own = sets.train.keep(draw(sets.train.photos, counts, "shots", seeds.subset))
            rest, held_out = parts(own, config.validation, seeds.subset)
            made = config.arm_count + _most_mixed(config, held_out)
            source = _tuned(config, sets, rest, sets.test, seeds, made, precision)
            for added in (0, config.arm_count):
                mixture = _added(rest.counts(), added)
                yield _run(
                    config, "shots", mixture, seeds, rest.photos, held_out, sets.test, source, shots=count
                )


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
            # As many as any usual share needs, so that the images do not depend on the shares asked for.
            usual = [mix(config.design, share, rest.counts()) for share in parse(["all"], config.design)]
            mixtures = [mix(config.design, share, rest.counts()) for share in shares]
            count = max(max(mixture.synthetic.values()) for mixture in (*usual, *mixtures))
            count += _most_mixed(config, held_out)
            source = _tuned(config, sets, rest, test, seeds[0], count, precision)
            places = {"fold": fold, "repeat": repeat}
            for mixture, one in product(mixtures, seeds):
                # The same subset seed comes in several repeats.
                salt = ("real", one.subset, *([repeat] if repeat else []))
                real = draw(rest.photos, mixture.real, *salt)
                yield _run(config, "fold", mixture, one, real, held_out, test, source, **places)


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


def _tuned(
    config: Evaluate, sets: Sets, real: ImageSet, test: ImageSet, seeds: Seeds, count: int, precision: str
) -> OwnGenerator:
    assert sets.base is not None
    one_a_class = {photo.label: photo for photo in reversed(test.photos)}
    return OwnGenerator(
        root=config.output,
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


def _run(
    config: Evaluate,
    name: str,
    mixture: Mixture,
    seeds: Seeds,
    real: Sequence[Photo],
    held_out: ImageSet,
    test: ImageSet,
    source: Source | None,
    **places: int,
) -> Run:
    """One run; an arm of one source alone has nothing to mix and needs no generator."""
    synthetic, own = any(mixture.synthetic.values()), any(mixture.real.values())
    return Run(
        arm=Arm(
            name=name,
            design="augment" if name == "shots" else config.design,
            mixture=mixture,
            mixing=config.mixing if synthetic and own else "union",
            real_weight=config.real_weight,
            **places,
        ),
        seeds=seeds,
        real=real,
        held_out=held_out.photos,
        test=test.photos,
        source=source if synthetic else None,
        options=config,
    )
