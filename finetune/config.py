"""Options of `finetune/train_lora.py`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from orchard import prompt_template
from orchard.cli import cli
from orchard.images.framing import Fit

Method = Literal["lora", "dora", "loha", "lokr", "full", "textual_inversion"]
Optimizer = Literal["adamw", "adamw8bit", "prodigy", "schedulefree"]
Schedule = Literal["constant", "linear", "cosine", "cosine_with_restarts"]
Quantize = Literal["none", "nf4", "int8"]
LossWeighting = Literal["auto", "min_snr", "debiased", "none"]
Captions = Literal["own", "context", "none"]
TimestepSampling = Literal["logit_normal", "uniform", "mode", "cosmap"]
LEAST = {
    "rank": 1,
    "steps": 1,
    "prior_count": 1,
    **dict.fromkeys(("batch_size", "accumulation", "learning_rate", "shift"), 0),
    **dict.fromkeys(("weight_decay", "max_grad_norm", "caption_dropout", "clip_skip"), 0),
    "loraplus_lr_ratio": 1,
    "num_vectors": 0,
    **dict.fromkeys(("alpha", "snr_gamma", "noise_offset", "ema_decay", "prior_weight"), 0),
    **dict.fromkeys(("validate_every", "preview_every", "save_every", "keep", "shots"), 0),
}
"""Lower limits of options."""


def with_trigger(trigger: str, text: str) -> str:
    """A caption or template with the trigger phrase before it."""
    return f"{trigger}, {text}" if trigger else text


@dataclass(frozen=True, kw_only=True)
class Scope(cli.Options):
    """Which adapters are trained, on what."""

    base: str = "mini"
    """Base model: mini, sd15, sd21, sdxl, sd35-medium, sd35-large, sd-turbo, sdxl-turbo, sd35-large-turbo, a
    Hub id, a diffusers folder, a .safetensors file."""
    classes: tuple[str, ...] = ()
    """Classes to train on; all by default."""
    joint: bool = False
    """One adapter for all classes instead of one each."""
    balance: bool = False
    """With --joint, show each class equally often, however many photos it has."""
    shots: int = 0
    """Real images per class, drawn with the seed; 0 takes all."""
    prompt: str = prompt_template.DEFAULT
    """Prompt template; {label} becomes the class name."""


@dataclass(frozen=True, kw_only=True)
class Captioning(cli.Options):
    """What is said of a photo besides its class."""

    captions: Captions = "own"
    """own: the captions that come with photos replace the prompt; context: background, number and framing
    follow the prompt, by captions.jsonl of --output, which is written first; none: the prompt alone."""
    trigger: str = ""
    """Put before every caption and prompt but --prior_prompt: a word of its own for what is learned."""
    caption_dropout: float = 0.0
    """Share of images that are shown without their caption, 0 to below 1: what guidance leads away from
    learns too."""
    clip_skip: int = 0
    """Layer of CLIP from its end that reads captions: 2 is the one before the last. 0 takes that of the base;
    SD 3 has no other. generate follows it."""
    captioner: str = ""
    """For --captions context: an image-to-text model of transformers (BLIP, Florence-2, Qwen-VL), folder or
    Hub id, that says it; by default it is measured."""


@dataclass(frozen=True, kw_only=True)
class Adapter(cli.Options):
    """What learns, and the file."""

    method: Method = "lora"
    """dora also learns each row's norm; loha and lokr are read by generate, WebUI and ComfyUI alone. full
    trains all weights and writes a pipeline folder CLASS; textual_inversion learns a word per class."""
    rank: int = 16
    """LoRA rank, 1 to 128."""
    rank_pattern: cli.Section = ()
    """Ranks of the layers that have a part of their name as said, as in mid_block=32 attn2.to_k=4."""
    alpha: float = 0.0
    """LoRA alpha (the update is scaled by alpha/rank); 0 takes the rank."""
    use_rslora: bool = False
    """Scale the update by alpha / root of the rank instead, which lets large ranks learn as fast."""
    init_lora_weights: Literal["gaussian", "pissa"] = "gaussian"
    """What lora starts from: nothing, or (pissa) the largest singular values of the weights themselves."""
    num_vectors: int = 0
    """Embedding vectors of a word for each class that is learned too (pivotal tuning), at the rate of text
    encoders; 0 for none. textual_inversion learns 1 unless given."""
    targets: tuple[str, ...] = ("attention",)
    """attention, attention+feedforward, all-linear, all (convolutions too), or endings of layer names."""
    train_text_encoder: bool = False
    """Also adapt the text encoders (both of SDXL, the CLIP ones of SD 3)."""
    quantize: Quantize = "none"
    """Keep the frozen denoiser in 4 (nf4) or 8 bits (int8), by bitsandbytes, while a LoRA learns."""
    export: Literal["none", "kohya", "merged"] = "none"
    """kohya also writes each adapter as WebUI and ComfyUI read it (SD 3: ComfyUI alone), into kohya/ beside
    it; not for dora, whose norms they apply otherwise. merged writes into merged/ what any method adds as
    the nearest plain LoRA of rank 128 at most, for the same tools, and tells its error."""


@dataclass(frozen=True, kw_only=True)
class Optimization(cli.Options):
    """Optimiser steps."""

    steps: int = 400
    """Optimiser steps per adapter."""
    batch_size: int = 0
    """Images per batch, divided among all processes; 0 is usual for the base: 16 on mini, 4 on SD 1 and 2, 1
    on SDXL and SD 3."""
    accumulation: int = 0
    """Batches whose gradients are summed into one step: a step sees batch_size times as many images; 0 is 4
    where the batch is the usual one of SDXL or SD 3, else 1."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of storing them: less memory, slower, the same adapter."""
    compile: bool = False
    """Compile what is trained with torch.compile: slow to start, then faster."""
    optimizer: Optimizer = "adamw"
    """All but adamw need their package: bitsandbytes, prodigyopt, schedulefree."""
    learning_rate: float = 0.0
    """Peak of the schedule; 0 is usual: 1e-3 on mini, else 1e-4; for full 5e-6, for
    textual_inversion 5e-4; with prodigy 1."""
    text_encoder_learning_rate: float = 0.0
    """Peak learning rate of the text encoders; 0 uses --learning_rate."""
    lr_scheduler: Schedule = "cosine"
    """How the rate falls after the warm-up; cosine and linear end at zero. schedulefree stays at its rate."""
    lr_warmup_steps: int | None = None
    """Steps over which the rate rises from zero; by default a twentieth of --steps."""
    lr_num_cycles: int = 1
    """Cosines of cosine_with_restarts, each from the peak to zero."""
    weight_decay: float = 0.01
    """Weight decay of the optimiser."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the optimiser's averages of gradients and of their squares."""
    max_grad_norm: float = 1.0
    """Longest gradient of a step; longer ones are scaled down to it. 0 leaves them."""
    loraplus_lr_ratio: float = 1.0
    """LoRA+: how many times faster the B matrices learn than the A matrices, e.g. 16; 1 turns it off."""
    ema_decay: float = 0.0
    """Save an exponential moving average of the weights, e.g. 0.99; 0 saves the last weights."""


@dataclass(frozen=True, kw_only=True)
class Loss(cli.Options):
    """How noise levels are drawn and weighed."""

    loss_weighting: LossWeighting = "auto"
    """How much each noise level weighs; auto is min_snr, and none for SD 3 or with --snr_gamma 0."""
    snr_gamma: float = 5.0
    """Gamma of min_snr; 0 turns it off."""
    noise_offset: float = 0.0
    """Scale of noise that is equal over a channel, e.g. 0.05, for darker and brighter images; 0 for none."""
    timestep_sampling: TimestepSampling = "logit_normal"
    """How often SD 3 is trained at each noise level, before --shift (Esser et al. 2024)."""
    shift: float = 0.0
    """Shift of SD 3's noise levels; 0 takes that of its scheduler, 3 for SD 3.5, which trains as it samples;
    1 leaves them."""


@dataclass(frozen=True, kw_only=True)
class Prior(cli.Options):
    """Prior preservation, as in DreamBooth."""

    prior_weight: float = 0.0
    """Weight of prior preservation, the loss on images of the class sampled from the base; 0 turns it off."""
    prior_count: int = 100
    """Images per class that the base samples for it, once."""
    prior_data: str = ""
    """Your own images of the classes instead: a set, named as for --data, whose training split is taken."""
    prior_prompt: str = prompt_template.DEFAULT
    """Their prompt template; give the photos another --prompt, e.g. `a photo of sks {label}`."""


@dataclass(frozen=True, kw_only=True)
class Images(cli.Options):
    """How photos become training images."""

    fit: Fit = "pad"
    """pad: learn from whole photos, on white where they are not square, as classifiers see them; crop: from
    their centres, for pictures without white bars, moved so that no object with a known box is cut."""
    buckets: bool = False
    """Fit photos to the nearest of several shapes, from 512 px on; squares are what generate samples."""
    flip: bool = True
    """Mirror half of the images; turn off where a mirror image is another class."""
    skip_bad: bool = False
    """Leave out files that are not whole images instead of stopping at them."""
    cache: str = "auto"
    """Folder for encoded photos and prompts: a path, `none`, or `auto` (~/.cache/orchard)."""


@dataclass(frozen=True, kw_only=True)
class Monitoring(cli.Options):
    """Validation, previews and logging."""

    validate_every: int = 0
    """Steps between validation losses, on a tenth of each class that is held out; 0 for none."""
    preview_every: int = 0
    """Steps between sample sheets with fixed seeds, previews/CLASS-STEP.png; 0 for none."""
    sheets: bool = True
    """Also write CLASS-loss.png and CLASS-samples.png: the curve, samples without and with the adapter."""
    log_with: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Tracker, from its own package; losses are always logged to logs/CLASS.jsonl of the output."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints(cli.Options):
    """Stopping, resuming, and where the adapters go."""

    save_every: int = 500
    """Steps between checkpoints; 0 saves only when a signal stops the run."""
    keep: int = 2
    """Newest checkpoints to keep of each adapter; 0 keeps all."""
    resume: str = ""
    """`latest`, or a checkpoint folder: resume exactly where a run stopped; finished adapters are kept."""
    output: Path = Path("adapters")
    """Folder for CLASS.safetensors."""


@dataclass(frozen=True, kw_only=True)
class TrainLora(
    Scope,
    Captioning,
    Adapter,
    Optimization,
    Loss,
    Prior,
    Images,
    Monitoring,
    Checkpoints,
    cli.Hub,
    cli.Common,
):
    """Train one LoRA adapter per class of the real set (or one for all with --joint)."""

    GONE: ClassVar[Mapping[str, str]] = {
        "logit_mean": "use --shift, which is e to the power of it",
        "logit_std": "it is 1, as SD 3 was trained; --timestep_sampling has other ways",
        "mode_scale": "it is 1.29, as in the paper of SD 3",
    }

    @property
    def template(self) -> str:
        """The prompt template with the trigger before it."""
        return with_trigger(self.trigger, self.prompt)

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.require_distinct("--classes", self.classes)
        self._require_ranges()
        self._require_consistent()
        self._require_schedule()
        self._require_method()
        self._require_whole()
        self._require_lora()
        cli.check(bool(self.cache), "--cache is empty; give a folder, auto or none")
        prompt_template.require_placeholder(self.prompt)
        prompt_template.require_placeholder(self.prior_prompt)

    def _require_ranges(self) -> None:
        """Limits of single options."""
        for name, least in LEAST.items():
            value = getattr(self, name)
            cli.check(least <= value < math.inf, f"--{name} {value}: give {least} or more")
        rate, decay = self.learning_rate, self.ema_decay
        cli.check(self.rank <= 128, f"--rank {self.rank}: give 1 to 128")
        cli.check(rate < 10, f"--learning_rate {rate}: give more than 0, less than 10; 0 for the usual one")
        cli.check(decay < 1, f"--ema_decay {decay}: give 0 (off) or more, less than 1")
        cli.check(
            self.shift == 0 or 0.01 <= self.shift <= 100,
            f"--shift {self.shift:g}: give 0.01 to 100, such as 1 or 3",
        )

    def _require_consistent(self) -> None:
        """Options that contradict each other."""
        cli.check(
            not self.captioner or self.captions == "context",
            f"--captioner {self.captioner}: goes with --captions context",
        )
        cli.check(self.joint or not self.balance, "--balance: goes with --joint, one adapter of all classes")
        cli.check(
            not (self.balance and self.buckets), "--balance: does not go with --buckets; give one of them"
        )
        dropout = self.caption_dropout
        cli.check(dropout < 1, f"--caption_dropout {dropout:g}: give 0 (off) or more, less than 1")
        cli.check(
            not self.prior_data or self.prior_weight > 0,
            f"--prior_data {self.prior_data}: goes with --prior_weight, such as 1",
        )
        cli.check(
            not self.prior_data or self.prior_count == TrainLora.prior_count,
            f"--prior_count {self.prior_count}: of images that the base samples; --prior_data has its own",
        )
        weighting, gamma = self.loss_weighting, self.snr_gamma
        if weighting == "min_snr":
            cli.check(gamma > 0, "--loss_weighting min_snr: needs --snr_gamma above 0")
        if weighting in ("debiased", "none"):
            cli.check(
                gamma == TrainLora.snr_gamma,
                f"--snr_gamma {gamma:g}: belongs to min_snr, not to --loss_weighting {weighting}; give one",
            )
        cli.check(
            not (self.ema_decay and self.optimizer == "schedulefree"),
            f"--ema_decay {self.ema_decay:g}: --optimizer schedulefree averages the weights itself; give one",
        )

    def _require_schedule(self) -> None:
        """Options of the schedule that contradict each other."""
        warm, cycles, named = self.lr_warmup_steps, self.lr_num_cycles, self.lr_scheduler
        cli.check(
            warm is None or 0 <= warm <= self.steps,
            f"--lr_warmup_steps {warm}: give 0 to {self.steps}, the number of --steps",
        )
        restarts = named == "cosine_with_restarts"
        cli.check(
            (cycles > 1) if restarts else cycles == 1,
            f"--lr_num_cycles {cycles}: "
            + (
                "--lr_scheduler cosine_with_restarts needs 2 or more"
                if restarts
                else "goes with --lr_scheduler cosine_with_restarts"
            ),
        )
        cli.check(
            named == TrainLora.lr_scheduler or self.optimizer != "schedulefree",
            f"--lr_scheduler {named}: --optimizer schedulefree stays at its rate; leave it out",
        )
        cli.check(
            all(0 <= beta < 1 for beta in self.betas),
            f"--betas {' '.join(map(str, self.betas))}: give two numbers from 0 to below 1, such as 0.9 0.99",
        )

    def _require_method(self) -> None:
        """Adapter options that exclude each other."""
        cli.check(bool(self.targets), "--targets: give at least one, such as attention")
        cli.require_distinct("--targets", self.targets)
        cli.check(
            self.quantize == "none" or self.method == "lora",
            f"--quantize {self.quantize}: --method {self.method} computes with the base's weights; give lora",
        )
        rate = self.text_encoder_learning_rate
        option = f"--text_encoder_learning_rate {rate:g}"
        cli.check(0 <= rate < 10, f"{option}: give more than 0, less than 10")
        trains = self.train_text_encoder or self.num_vectors > 0
        cli.check(not rate or trains, f"{option}: goes with --train_text_encoder or --num_vectors")
        cli.check(
            not rate or self.optimizer != "prodigy",
            f"{option}: --optimizer prodigy finds one step size for everything; leave it out",
        )
        cli.check(
            self.export != "kohya" or self.method in ("lora", "dora"),
            f"--export kohya: --method {self.method} always has those names; leave it out",
        )
        cli.check(
            self.export != "kohya" or self.method != "dora",
            "--export kohya: WebUI and ComfyUI apply the norms of --method dora differently, which gives "
            "wrong weights; give --export merged",
        )

    @property
    def vectors(self) -> int:
        """Vectors of each class's word; 0 where classes have none."""
        return self.num_vectors or int(self.method == "textual_inversion")

    def _require_whole(self) -> None:
        """Options that make no sense where no layer gets an adapter, or that the method has no place for."""
        method = f"--method {self.method}"
        if self.method in ("full", "textual_inversion"):
            usual = TrainLora()
            names = ("rank", "alpha", "targets", "rank_pattern", "export")
            given = [name for name in names if getattr(self, name) != getattr(usual, name)]
            cli.check(
                not given, f"--{given[0] if given else ''}: of adapters; {method} has none, leave it out"
            )
        if self.method == "full":
            cli.check(
                not self.num_vectors, f"--num_vectors {self.num_vectors}: goes with adapters, not {method}"
            )
            cli.check(
                not self.push_to_hub,
                f"--push_to_hub: not for {method}; `hf upload NAME FOLDER` takes a folder",
            )
        if self.method == "textual_inversion":
            cli.check(not self.joint, f"--joint: with {method} each class learns for itself; leave it out")
            cli.check(
                not self.train_text_encoder,
                f"--train_text_encoder: {method} learns words alone; for both give --num_vectors with a LoRA",
            )

    def _require_lora(self) -> None:
        """Options of LoRA and its kin."""
        for name, methods in (
            ("use_rslora", ("lora", "dora")),
            ("loraplus_lr_ratio", ("lora", "dora")),
            ("init_lora_weights", ("lora",)),
        ):
            value, usual = getattr(self, name), getattr(TrainLora, name)
            cli.check(
                value == usual or self.method in methods,
                f"--{name} {value}: goes with --method {' or '.join(methods)}, not {self.method}",
            )
        cli.check(
            self.loraplus_lr_ratio == 1 or self.optimizer != "prodigy",
            f"--loraplus_lr_ratio {self.loraplus_lr_ratio:g}: --optimizer prodigy finds one step size for "
            "everything; leave it out",
        )
        for pattern in self.rank_pattern:
            part, _, rank = pattern.partition("=")
            cli.check(
                bool(part) and rank.isascii() and rank.isdigit() and 1 <= int(rank) <= 128,
                f"--rank_pattern {pattern}: give PART=RANK with a rank of 1 to 128, as in mid_block=32",
            )
