"""Options of `python -m evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from classify.config import MixingName, Training
from evaluate.generators import AUTO, GENERATORS, GIVEN, NAMES, NONE, SEARCH, TUNED
from orchard.classifiers.pretrained import FEATURES
from orchard.cli import cli
from orchard.errors import UserError

Design = Literal["substitute", "augment"]
Control = Literal["strong", "screens"]
SeedName = Literal["subset", "generator", "classifier"]
Mixing = Literal[MixingName, "auto"]


@dataclass(frozen=True, kw_only=True)
class Mixtures(cli.Options):
    """The arms, and the images in them."""

    ratios: tuple[str, ...] = ("all",)
    """Shares of real images, 0 to 1; `all` is the report's four: 1.0 0.5 0.3 0.0."""
    synthetic: str = "shards"
    """Folder that `python -m generate` wrote, here or behind an fsspec URL (s3://bucket/set)."""
    design: Design | None = None
    """substitute (the default): the total stays, real images give way; augment: all real ones stay, synthetic
    ones join, as always with --search."""
    total: int = 0
    """Images in a mixture (substitute); 0 is the number of real training images."""
    controls: tuple[Control, ...] = ()
    """Further arms at equal steps. strong: all real images with strong augmentation; screens: the synthetic
    images as each screen of generate would have let them through (ablation)."""
    mixing: Mixing = "union"
    """How real and synthetic images are mixed (docs/evaluate.md); auto takes the lowest validation loss."""
    real_weight: float = 0.8
    """Real share of the loss (weight) or of each batch (batch)."""


@dataclass(frozen=True, kw_only=True)
class Repetition(cli.Options):
    """How often each arm is run, and on which photos."""

    seeds: int = 5
    """Runs of each arm: seeds --seed, --seed + 1, and so on."""
    vary_seeds: tuple[SeedName, ...] = ("subset", "generator", "classifier")
    """Seeds that go up from run to run: of the draw of real images, of the arms' own adapters and images,
    of the classifier; those left out stay at --seed, to tell the causes apart."""
    shots: tuple[str, ...] = ()
    """Low-shot arms instead, with generators of their own: real images per class, e.g. 1,2,4,8,16."""
    left_over: bool = False
    """Score low-shot arms on the training images that they leave over too, not on the test split alone."""
    folds: int = 0
    """Cross-validation instead, over all real images and with generators of its own: folds, 2 or more."""
    repeats: int = 1
    """Divisions into --folds."""


@dataclass(frozen=True, kw_only=True)
class OwnGenerators(cli.Options):
    """What makes the arms' synthetic images, where that is part of the experiment."""

    generators: tuple[str, ...] = ()
    """An arm for each: none (the real images alone), untuned, tuned, context, context:own, img2img,
    repaint:background, :object, :centre or :outpaint, gan, vae, given (the set in --synthetic), auto
    (whichever of the others validation images favour). By default given; none and tuned with --shots, tuned
    with --folds."""
    base: str = "mini"
    """Base model of the arms' own generators, as in finetune/train_lora.py."""
    arm_steps: int = 150
    """Optimiser steps of each of the arms' own adapters; a gan or vae, which begins from nothing, takes ten
    times as many."""
    arm_count: int = 50
    """Synthetic images per class that are added to the real ones in a low-shot arm."""
    arm_prompt: tuple[str, ...] = ()
    """Prompt templates of the arms' own images, as --prompt of generate; by default the adapters' own."""


@dataclass(frozen=True, kw_only=True)
class Search(cli.Options):
    """The recipe that pays, looked for."""

    search: bool = False
    """Look for the recipe of lowest loss on an arm's own real images (generator, number of images, guidance,
    adapter weight, selection, mixing), and run it beside these images alone. --generators names those to look
    among, by default all but gan and vae."""
    trials: int = 30
    """Recipes that a search tries."""
    hours: float = 0.0
    """Hours after which a search tries no further recipe; 0 for no limit."""


@dataclass(frozen=True, kw_only=True)
class Report(cli.Options):
    """External test sets and the report."""

    external: tuple[str, ...] = ()
    """Further real sets of the same classes to score on, all their images; nothing is chosen by them."""
    also: tuple[Path, ...] = ()
    """Outputs of earlier experiments to show on the same page, e.g. the low-shot one beside the ratios."""
    margin: float = 2.0
    """Percentage points of accuracy that count as no loss, above 0 (non-inferiority)."""
    backbone: str = ""
    """Also measure the domain gap by this image model, a folder or Hub id on disk: facebook/dinov2-small."""
    output: Path = Path("evaluation")
    """Folder for records.jsonl, metrics.csv, arms.csv, analysis.json and report.html."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Mixtures, Repetition, OwnGenerators, Search, Training, Report, cli.Common):
    """Train classifiers on mixtures of real and synthetic images and score them on real test images."""

    GONE: ClassVar[Mapping[str, str]] = {
        "subset_seed": "use --seed with --vary_seeds, which says what changes from run to run",
        "generator_seed": "use --seed with --vary_seeds, which says what changes from run to run",
        "vary": "use --vary_seeds",
        "untuned": "use --generators given untuned, which samples the base itself",
    }

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        cli.check(self.seeds >= 1, f"--seeds {self.seeds}: give 1 or more")
        cli.check(
            "classifier" in self.vary_seeds or self.seeds == 1,
            "--vary_seeds: needs `classifier` for more than one of --seeds, which tells the runs apart",
        )
        cli.check(self.total >= 0, f"--total {self.total}: give 0 or more")
        cli.check(
            not self.total or self.laid_out == "substitute",
            f"--total {self.total}: only in the substitute design; augment keeps all real images",
        )
        cli.check(
            bool(self.shots) or not self.left_over,
            "--left_over: only with --shots, whose arms take a few of the training images",
        )
        cli.check(self.folds != 1 and self.folds >= 0, f"--folds {self.folds}: give 2 or more")
        for name in ("repeats", "arm_steps", "arm_count", "trials"):
            value = getattr(self, name)
            cli.check(value >= 1, f"--{name} {value}: give 1 or more")
        weight = self.real_weight
        cli.check(0 < weight < 1, f"--real_weight {weight}: give more than 0, less than 1")
        cli.require_distinct("--external", self.external)
        cli.require_distinct("--controls", self.controls)
        cli.check(
            not self.model.startswith(FEATURES) or self.mixing in ("union", "weight"),
            f"--mixing {self.mixing}: not with --model {self.model}, whose last layer is solved as a "
            "logistic regression; use union",
        )
        self._require_generators()
        self._require_search()
        self._require_one_experiment()
        cli.check(0 < self.margin < 100, f"--margin {self.margin:g}: give points above 0, below 100")
        super().require_valid()

    def _require_one_experiment(self) -> None:
        """What is for mixtures of a given set is refused where low-shot arms or folds bring their own."""
        unlabelled = next((prompt for prompt in self.arm_prompt if "label" not in prompt), None)
        cli.check(unlabelled is None, f"--arm_prompt {unlabelled!r}: names no {{label}}, the class to sample")
        cli.check(
            not self.arm_prompt or self.brings_base,
            "--arm_prompt: only with --shots, --folds or --generators; give generate --prompt",
        )
        if not self.own_photos:
            return
        own = "--shots" if self.shots else "--folds"
        cli.check(not (self.shots and self.folds), "--shots and --folds: one at a time, into one --output")
        cli.check(not self.total, f"--total {self.total}: not with {own}, whose totals are the arms' own")
        cli.check(not self.controls, f"--controls: not with {own}; run them in the ratio sweep")
        cli.check(
            GIVEN not in self.generators,
            f"--generators given: not with {own}; what made --synthetic may have seen other photos",
        )

    def _require_generators(self) -> None:
        cli.require_distinct("--generators", self.generators)
        unknown = next((name for name in self.generators if name not in NAMES), None)
        cli.check(unknown is None, f"--generators {unknown}: give some of {', '.join(NAMES)}")
        asked = next((name for name in self.arms_by if name.startswith("context")), None)
        cli.check(
            asked is None or not self.arm_prompt,
            f"--generators {asked}: its adapters bring their own prompts; leave --arm_prompt out",
        )
        model = next((name for name in self.arms_by if name in GENERATORS and GENERATORS[name].model), None)
        cli.check(
            model is None or not self.arm_prompt,
            f"--generators {model}: takes classes and no prompts; leave --arm_prompt out",
        )
        cli.check(
            AUTO not in self.generators or bool(self.makers),
            "--generators auto: name those to choose among too, such as auto untuned tuned",
        )
        cli.check(
            "screens" not in self.controls or GIVEN in self.arms_by,
            "--controls screens: is about the set in --synthetic; add `given` to --generators",
        )

    def _require_search(self) -> None:
        cli.check(0 <= self.hours < 1e6, f"--hours {self.hours:g}: give 0 (no limit) to a million")
        if not self.search:
            for name in ("trials", "hours"):
                value = getattr(self, name)
                cli.check(value == getattr(Evaluate, name), f"--{name} {value:g}: goes with --search")
            return
        cli.check(
            self.laid_out == "augment",
            "--design substitute: --search asks what synthetic images add to real ones; leave it out",
        )
        cli.check(
            bool(self.makers), "--generators none: --search looks among others; name some, or leave it out"
        )
        cli.check(
            AUTO not in self.generators, "--search: looks among more than --generators auto; leave auto out"
        )
        model = next((name for name in self.makers if name in GENERATORS and GENERATORS[name].model), None)
        cli.check(
            model is None, f"--generators {model}: --search looks among recipes of diffusion; leave it out"
        )
        cli.check(self.mixing == "union", f"--mixing {self.mixing}: --search looks for it; leave it out")
        cli.check(not self.controls, "--controls: not with --search; run them in an experiment of their own")
        cli.check(
            not self.model.startswith(FEATURES), f"--model {self.model}: not with --search; give a network"
        )

    @property
    def laid_out(self) -> Design:
        """``--design``, or what it is by default."""
        return self.design or ("augment" if self.search else "substitute")

    @property
    def arms_by(self) -> tuple[str, ...]:
        """``--generators``, or what it is by default; `auto` comes after those that it chooses among."""
        if self.search:
            return NONE, SEARCH
        usual = (NONE, TUNED) if self.shots else (TUNED,) if self.folds else (GIVEN,)
        return tuple(sorted(self.generators or usual, key=lambda name: name == AUTO))

    @property
    def makers(self) -> tuple[str, ...]:
        """Those that make images: what `auto` and ``--search`` choose among, besides no images."""
        diffusion = tuple(name for name, made in GENERATORS.items() if not made.model)
        among = self.generators or diffusion if self.search else self.arms_by
        return tuple(name for name in among if name not in (AUTO, NONE))

    @property
    def chooser(self) -> str:
        """The one of `arms_by` that chooses among the others; empty without one."""
        return next((name for name in self.arms_by if name in (AUTO, SEARCH)), "")

    @property
    def own_photos(self) -> bool:
        """Whether arms have photos of their own, which their generators must not know more than."""
        return bool(self.shots or self.folds)

    @property
    def brings_base(self) -> bool:
        """Whether arms make images themselves, or belong beside such arms."""
        return self.own_photos or not GENERATORS.keys().isdisjoint(self.makers)


def parse_shots(words: Sequence[str]) -> list[int]:
    """``("1,2", "4")`` -> real images per class, smallest first, without repeats.

    Raises:
        UserError: not a whole number from 1.
    """
    shots = set()
    for word in cli.split_list(words):
        if not word.isascii() or not word.isdigit() or int(word) < 1:
            raise UserError(f"--shots {word}: give real images per class, 1 or more, such as 1,2,4,8,16")
        shots.add(int(word))
    return sorted(shots)
