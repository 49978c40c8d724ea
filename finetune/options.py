"""The groups of options of `finetune/train_lora.py`: the sections of its ``--help``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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


@dataclass(frozen=True, kw_only=True)
class Scope(cli.Options):
    """Which adapters are trained, on what."""

    base: str = "mini"
    """Base model: mini, sd15, sd21, sdxl, sd35-medium, sd35-large, sana, sd-turbo, sdxl-turbo,
    sd35-large-turbo, a Hub id, a diffusers folder, a .safetensors file."""
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
class Privacy(cli.Options):
    """Differential privacy of single photos (experimental), by Opacus."""

    dp_epsilon: float = 0.0
    """Epsilon that the adapter may spend on a photo, e.g. 8; 0 turns it off. Each photo's gradient is
    clipped to --max_grad_norm, and noise is added to their sum."""
    dp_delta: float = 0.0
    """Delta that goes with it, below 1 / N for an adapter of N photos; 0 takes 1e-5, or 1 / 10 N where that
    is less."""


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
class Validation(cli.Options):
    """The loss on photos that are held out."""

    validate_every: int = 0
    """Steps between validation losses, on a tenth of each class that is held out; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class Monitoring(cli.Options):
    """Previews and logging; NAME is a class, or what is trained for all of them."""

    preview_every: int = 0
    """Steps between sample sheets with fixed seeds, previews/NAME-STEP.png; 0 for none."""
    sheets: bool = True
    """Also write NAME-loss.png and NAME-samples.png: the curve, and samples (without an adapter, too)."""
    log_with: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Tracker, from its own package; losses are always logged to logs/NAME.jsonl of the output."""


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
