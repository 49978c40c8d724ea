"""Options of `python -m generate`."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from generate.planning import ranges
from orchard.cli import cli

Scheduler = Literal["dpmsolver++", "ddim", "euler", "euler_a", "unipc", "lcm", "base"]
Repaint = Literal["background", "object", "centre", "outpaint"]
Contexts = Literal["shuffled", "own", "none"]
Screen = Literal["flat", "duplicate", "memorised", "off_class", "none"]
Keep = Literal["random", "margin", "hard", "near", "diverse", "clip"]


@dataclass(frozen=True, kw_only=True)
class Adapters(cli.Options):
    """What is sampled from."""

    lora: tuple[str, ...] = ()
    """What finetune wrote, looked for here and then in adapters/: LoRA files, words of textual inversion, or
    folders of whole pipelines (--method full). Files also from the Hub, as OWNER/NAME or OWNER/NAME:FILE; a
    weight may follow, as in apple.safetensors:0.7. None samples the base as it is (a control)."""
    fuse: bool = False
    """Sample from all of --lora at once, each at its weight, instead of from each in turn."""
    lcm: str = ""
    """LCM-LoRA for the base, file or Hub id: the lcm scheduler, 4 steps and guidance 1 unless given."""
    base: str = ""
    """Base model; by default the one the adapter was made for, mini without an adapter."""
    generator: str = ""
    """Sample from a GAN or VAE instead: a file of finetune/train_gan.py or train_vae.py, looked for here and
    then in generators/."""


@dataclass(frozen=True, kw_only=True)
class Amount(cli.Options):
    """How many images of which classes."""

    classes: tuple[str, ...] = ()
    """Classes to sample: by default all that the adapters were trained on."""
    count: int = 0
    """Images per class; 0 means 200, unless --total or --balance is given."""
    total: int = 0
    """Images of all classes together, shared out evenly."""
    balance: Literal["largest"] | int | None = None
    """Fill each class of --data's training images up to the largest class, or to this number."""


@dataclass(frozen=True, kw_only=True)
class Prompts(cli.Options):
    """The prompts."""

    prompt: tuple[str, ...] = ()
    """Prompt templates (Jinja2) with {label}; by default the one the adapter was trained with."""
    vary: cli.Section = ()
    """Phrases as NAME=PHRASE, in a recipe a section of lists; every class uses all combinations evenly.
    Templates say {{ NAME }}; without --prompt a phrase of each NAME follows the adapter's own prompt."""
    contexts: Contexts | None = None
    """Contexts of the training photos (finetune --captions context): shuffled draws those of all adapters for
    each class, own those of the class. By default shuffled after the adapter's own prompt, or where a
    --prompt says {{ context }}; none otherwise."""


@dataclass(frozen=True, kw_only=True)
class Sampling(cli.Options):
    """How one image is sampled."""

    steps: int = 0
    """Sampling steps; 0 takes 10 on mini, where more did not help (docs/log/fruit.md), 4 on bases distilled
    to few (turbo, lightning), 20 on others."""
    guidance: ranges.Given | None = None
    """Guidance scale, by default 2, with --repaint 3, on distilled bases 1, which turns classifier-free
    guidance off. A range, as in 1.5..3, gives each row its own."""
    scheduler: Scheduler | None = None
    """Sampler, by default dpmsolver++, on distilled bases their own; `base` is the base's own. SD 3 takes
    dpmsolver++, euler and base."""
    image_guidance: str = ""
    """Start each sample from a training image of its class in this real set (named as for --data)."""
    strength: ranges.Given | None = None
    """How much of a real image is replaced, above 0 (nothing) to 1 (all): by default 0.7, with --repaint 0.97
    inside the mask and 0.95 outside it. A range, as in 0.4..0.8, gives each row one of five values."""
    safety_checker: bool = True
    """Sample images anew that the base's own safety checker flags, where the base has one."""
    attempts: int = 5
    """Seeds tried for an image that is flagged or of a single colour, before it is rejected."""


@dataclass(frozen=True, kw_only=True)
class Repainting(cli.Options):
    """Parts of real images drawn anew."""

    repaint: Repaint | None = None
    """Sample into --data's training images of the class, anew what is around the object (background), the
    object, the middle square of half the side (centre), or the middle and then the rest (outpaint)."""
    mask: str = "boxes"
    """Where the object is: in the boxes beside the photos (boxes), in what GrabCut finds in them (grabcut),
    white in a folder's mask images, or as CLIPSeg or SAM says (a folder or Hub id)."""
    mask_dilate: int = 0
    """Pixels of the sampled image that the mask grows by on each side; below 0 it shrinks."""
    mask_feather: int = 0
    """Pixels over which the repainted part fades into the photo; 0 keeps the rest of the photo to the bit."""
    mask_invert: bool = False
    """Take the inside of the mask for the outside."""


@dataclass(frozen=True, kw_only=True)
class Steering(cli.Options):
    """What guidance leads away from."""

    negative_prompt: str = ""
    """Template (Jinja2) of what the images should not show; it may have {label}."""
    contrast: float = 0.0
    """Lead away from another class's prompt too, each of the others in turn: its weight beside the negative
    prompt, above 0 to 1; 0 leads away from none."""


@dataclass(frozen=True, kw_only=True)
class Resources(cli.Options):
    """Speed and memory."""

    batch_size: int = 16
    """Images sampled at once."""
    compile: bool = False
    """Compile the denoiser with torch.compile: slow to start, then faster."""
    offload: Literal["none", "model", "layers"] = "none"
    """Keep weights off the GPU until they are needed, whole models or single layers at a time."""
    low_memory: bool = False
    """Compute attention in slices, decode images one at a time and in tiles: less memory, slower."""


@dataclass(frozen=True, kw_only=True)
class Screening(cli.Options):
    """Which images are kept."""

    screens: tuple[Screen, ...] = ("flat", "duplicate")
    """What keeps images out, or none: flat ones, near-duplicates of earlier ones of the class, near copies of
    --data's training images (memorised), what --screen_classifier takes for another class (off_class)."""
    screen_classifier: Path | None = None
    """Folder that python -m classify wrote, for --screens off_class and --keep; train it on real training
    images."""
    reject_limit: float = 1.0
    """Images of a class that may be rejected, as a multiple of its count, before the run stops short."""


@dataclass(frozen=True, kw_only=True)
class Choosing(cli.Options):
    """Which of several candidates is kept."""

    candidates: int = 1
    """Images sampled for each one that is kept; they share its prompt and guide."""
    keep: Keep | None = None
    """Of the candidates of each image keep: one at random, that of the largest margin by --screen_classifier,
    the hardest (the smallest margin that is right and like the real photos), the nearest to a real photo of
    --data, the most diverse, or what CLIP finds most like its prompt. near, hard and diverse compare features
    of --backbone, else of --screen_classifier."""
    backbone: str = ""
    """A DINOv2 or CLIP for --keep: a folder, or a Hub id that is on this machine."""
    rescreen: bool = False
    """Sample nothing: apply --screens and --keep to the images that are in --output."""


@dataclass(frozen=True, kw_only=True)
class Output(cli.Options):
    """Where the set goes."""

    output: str = "shards"
    """Folder of the synthetic set, here or behind an fsspec URL (s3://bucket/set)."""
    shard_size: int = 256
    """Images per shard file."""
    verify: bool = False
    """Look at the hash of every shard that is there, not at its size alone, before going on with a set."""
    sign: tuple[Path, ...] = ()
    """Sign every image with Content Credentials (C2PA): give CERT KEY, a certificate chain and its private
    key, both in PEM."""
    push_rejected: bool = False
    """With --push_to_hub, upload the images that the screens rejected too."""


@dataclass(frozen=True, kw_only=True)
class Generate(
    Adapters,
    Amount,
    Prompts,
    Sampling,
    Repainting,
    Steering,
    Resources,
    Screening,
    Choosing,
    Output,
    cli.Hub,
    cli.Common,
):
    """Sample a labelled synthetic set from LoRA adapters into Parquet shards."""

    GONE: ClassVar[Mapping[str, str]] = {
        "lora_scale": "give each --lora its weight, as in apple.safetensors:0.5",
        "attention_slicing": "use --low_memory",
        "vae_slicing": "use --low_memory",
    }

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.require_distinct("--classes", self.classes)
        self._require_counts()
        self._require_sampling()
        self._require_repainting()
        self._require_screens()
        self._require_choosing()
        self._require_generator()
        cli.check(
            len(self.sign) in (0, 2), f"--sign {' '.join(map(str, self.sign))}: give two files, CERT KEY"
        )
        cli.check(
            not self.push_rejected or bool(self.push_to_hub), "--push_rejected: goes with --push_to_hub NAME"
        )
        cli.check(
            not self.push_to_hub or "://" not in str(self.output),
            f"--push_to_hub uploads a local folder, not {self.output}; give another --output",
        )

    def _require_generator(self) -> None:
        """What is for diffusion models means nothing to a GAN or VAE."""
        usual = type(self)()
        groups = (Adapters, Prompts, Sampling, Repainting, Steering, Resources)
        names = [field.name for group in groups for field in dataclasses.fields(group)]
        for name in names if self.generator else ():
            given = getattr(self, name) != getattr(usual, name) and name not in ("generator", "batch_size")
            flag = "no_safety_checker" if name == "safety_checker" else name
            cli.check(
                not given, f"--generator {self.generator}: makes images in one pass; leave out --{flag}"
            )

    def _require_counts(self) -> None:
        given = [name for name in ("count", "total") if getattr(self, name)]
        given += ["balance"] if self.balance is not None else []
        cli.check(len(given) < 2, f"--{' and --'.join(given)}: give one of them")
        for name in ("count", "total"):
            value = getattr(self, name)
            cli.check(0 <= value <= 10**8, f"--{name} {value}: give 1 to {10**8}, or 0 for the usual")
        if isinstance(self.balance, int):
            cli.check(1 <= self.balance <= 10**8, f"--balance {self.balance}: give 1 to {10**8}, or largest")
        for name, most in (("batch_size", 4096), ("shard_size", 10**6), ("attempts", 1000)):
            value = getattr(self, name)
            cli.check(1 <= value <= most, f"--{name} {value}: give 1 to {most}")

    def _require_sampling(self) -> None:
        cli.check(0 <= self.steps <= 1000, f"--steps {self.steps}: give 1 to 1000, or 0 for the base's usual")
        self._require_steering()
        cli.check(not self.fuse or len(self.lora) > 1, "--fuse: give two or more --lora")

    def _require_steering(self) -> None:
        if self.guidance is not None:
            found = ranges.parse("--guidance", self.guidance)
            cli.check(found.low >= 0, f"--guidance {self.guidance}: give 0 or more")
            cli.check(
                not found.is_wide or found.low >= 1,
                f"--guidance {self.guidance}: begin at 1, which leads nowhere, or above",
            )
        if self.strength is not None:
            strength = ranges.parse("--strength", self.strength)
            cli.check(
                bool(self.repaint or self.image_guidance),
                f"--strength {self.strength}: goes with --image_guidance or --repaint",
            )
            cli.check(
                strength.low > 0 and strength.high <= 1, f"--strength {self.strength}: give above 0 to 1"
            )
        cli.check(0 <= self.contrast <= 1, f"--contrast {self.contrast}: give above 0 to 1, or 0 for none")
        cli.check(
            self.contrast < 1 or not self.negative_prompt,
            "--contrast 1: leaves nothing of --negative_prompt; give less, or leave that out",
        )

    def _require_repainting(self) -> None:
        cli.check(
            not (self.repaint and self.image_guidance),
            "--repaint and --image_guidance: give one of them; --repaint takes the photos of --data",
        )
        usual = Repainting()
        of_masks = ("mask", "mask_dilate", "mask_feather", "mask_invert")
        given = [name for name in of_masks if getattr(self, name) != getattr(usual, name)]
        cli.check(
            self.repaint is not None or not given, f"--{given[0] if given else ''}: goes with --repaint"
        )
        masked = self.repaint in (None, "background", "object")
        cli.check(
            masked or self.mask == usual.mask,
            f"--mask {self.mask}: --repaint {self.repaint} repaints the middle; leave it out",
        )
        cli.check(abs(self.mask_dilate) <= 512, f"--mask_dilate {self.mask_dilate}: give -512 to 512")
        cli.check(0 <= self.mask_feather <= 512, f"--mask_feather {self.mask_feather}: give 0 to 512")

    def _require_screens(self) -> None:
        cli.require_distinct("--screens", self.screens)
        cli.check(0 <= self.reject_limit < math.inf, f"--reject_limit {self.reject_limit}: give 0 or more")
        cli.check("none" not in self.screens or len(self.screens) == 1, "--screens none: name it alone")
        uses = self.keep in ("margin", "hard") or (self.keep in ("near", "diverse") and not self.backbone)
        cli.check(
            "off_class" not in self.screens or self.screen_classifier is not None,
            "--screens off_class and --screen_classifier FOLDER go together: give both, or neither",
        )
        cli.check(
            self.screen_classifier is None or uses or "off_class" in self.screens,
            "--screen_classifier: used by --screens off_class and by --keep; give one of them",
        )

    def _require_choosing(self) -> None:
        cli.check(1 <= self.candidates <= 1000, f"--candidates {self.candidates}: give 1 to 1000")
        cli.check(
            self.rescreen or (self.candidates > 1) == (self.keep is not None),
            "--candidates N, 2 or more, and --keep RULE go together: give both, or neither",
        )
        features = self.keep in ("near", "hard", "diverse", "clip")
        cli.check(not self.backbone or features, "--backbone: goes with --keep near, hard, diverse or clip")
        cli.check(
            self.keep not in ("margin", "hard") or self.screen_classifier is not None,
            f"--keep {self.keep}: give --screen_classifier FOLDER",
        )
        cli.check(
            self.keep not in ("near", "diverse") or bool(self.backbone or self.screen_classifier),
            f"--keep {self.keep}: give --backbone NAME or --screen_classifier FOLDER for features",
        )
        cli.check(self.keep != "clip" or bool(self.backbone), "--keep clip: give --backbone NAME, a CLIP")
        if self.rescreen:
            self._require_nothing_to_sample()

    def _require_nothing_to_sample(self) -> None:
        sampling = (Adapters, Amount, Prompts, Sampling, Steering, Resources)
        names = [field.name for group in sampling for field in dataclasses.fields(group)]
        default = type(self)()
        for name in (*names, "candidates", "shard_size", "reject_limit", "seed", "precision"):
            given = getattr(self, name) != getattr(default, name) and name != "classes"
            cli.check(not given, f"--rescreen: samples nothing, so leave out --{name}")
