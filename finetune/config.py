"""Options of `finetune/train_lora.py`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchard import cli, prompts
from orchard.roles import Method

Optimizer = Literal["adamw", "adamw8bit", "prodigy", "schedulefree"]


@dataclass(frozen=True, kw_only=True)
class TrainLora(cli.Sharing):
    """Train one LoRA adapter per class of the real set (or one for all with --joint)."""

    base: str = "mini"
    """Base model: mini, sd15, sd21, sdxl, sd35-medium, a Hub id, a diffusers folder, a .safetensors file."""
    classes: tuple[str, ...] = ()
    """Classes to train on; all by default."""
    joint: bool = False
    """One adapter for all classes instead of one each."""
    shots: int = 0
    """Real images a class, drawn with the seed; 0 takes all."""
    steps: int = 400
    """Optimiser steps an adapter."""
    batch_size: int = 16
    """Images a step, over all processes together."""
    optimizer: Optimizer = "adamw"
    """All but adamw need their package: bitsandbytes, prodigyopt, schedulefree."""
    learning_rate: float = 1e-3
    """Peak after a short warm-up, then a cosine to zero; schedulefree stays at it, prodigy wants 1."""
    rank: int = 16
    """LoRA rank, 1 to 128."""
    alpha: float = 0.0
    """LoRA alpha (the update is scaled by alpha/rank); 0 takes the rank."""
    method: Method = "lora"
    """dora also learns each row's norm; loha and lokr are read by generate, WebUI and ComfyUI alone."""
    targets: tuple[str, ...] = ("attention",)
    """attention, attention+feedforward, all-linear, all (convolutions too), or endings of layer names."""
    train_text_encoder: bool = False
    """Also adapt the text encoders (both of SDXL, the CLIP ones of SD 3)."""
    text_encoder_learning_rate: float = 0.0
    """Their own peak; 0 takes --learning_rate."""
    snr_gamma: float = 5.0
    """Min-SNR-gamma loss weighting; 0 turns it off. SD 3 has none."""
    prompt: str = prompts.DEFAULT
    """Prompt template; {label} becomes the class name."""
    prior_weight: float = 0.0
    """Weight of prior preservation, the loss on the base's own pictures of the class; 0 turns it off."""
    prior_count: int = 100
    """Pictures of each class that the base samples for it, once."""
    prior_prompt: str = prompts.DEFAULT
    """Their prompt template; give the photos another --prompt, e.g. `a photo of sks {label}`."""
    flip: bool = True
    """Mirror half of the images; turn off where a mirror image is another class."""
    validate_every: int = 0
    """Steps between two losses on held-out photos, a tenth of each class, not trained on; 0 for none."""
    log_with: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Tracker, from its own package; losses also stand in logs/CLASS.jsonl of the output."""
    save_every: int = 500
    """Steps between two checkpoints; 0 saves only when a signal stops the run."""
    keep: int = 2
    """Newest checkpoints to keep of each adapter; 0 keeps all."""
    resume: str = ""
    """`latest`, or a checkpoint folder: go on exactly where a run stopped; finished adapters stay."""
    export: Literal["none", "kohya"] = "none"
    """kohya also writes each adapter as WebUI and ComfyUI read it, into the folder kohya/ beside it."""
    skip_bad: bool = False
    """Leave out files that are not whole images instead of stopping at them."""
    output: Path = Path("adapters")
    """Folder for CLASS.safetensors."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.require_distinct("--classes", self.classes)
        cli.check(1 <= self.rank <= 128, f"--rank {self.rank}: give 1 to 128")
        cli.check(self.steps >= 1, f"--steps {self.steps}: give 1 or more")
        cli.check(self.batch_size >= 1, f"--batch_size {self.batch_size}: give 1 or more")
        rate = self.learning_rate
        cli.check(0 < rate < 10, f"--learning_rate {rate}: give more than 0, less than 10")
        cli.check(0 <= self.alpha < math.inf, f"--alpha {self.alpha}: give 0 or more")
        self._require_method()
        cli.check(0 <= self.snr_gamma < math.inf, f"--snr_gamma {self.snr_gamma}: give 0 or more")
        every = self.validate_every
        cli.check(every >= 0, f"--validate_every {every}: give 0 or more")
        cli.check(self.save_every >= 0, f"--save_every {self.save_every}: give 0 or more")
        cli.check(self.keep >= 0, f"--keep {self.keep}: give 0 or more")
        cli.check(self.shots >= 0, f"--shots {self.shots}: give 0 or more")
        weight = self.prior_weight
        cli.check(0 <= weight < math.inf, f"--prior_weight {weight}: give 0 or more")
        cli.check(self.prior_count >= 1, f"--prior_count {self.prior_count}: give 1 or more")
        prompts.require_place(self.prompt)
        prompts.require_place(self.prior_prompt)

    def _require_method(self) -> None:
        """Options of the adapter that make no sense together."""
        cli.check(bool(self.targets), "--targets: give at least one, such as attention")
        cli.require_distinct("--targets", self.targets)
        rate = self.text_encoder_learning_rate
        option = f"--text_encoder_learning_rate {rate:g}"
        cli.check(0 <= rate < 10, f"{option}: give more than 0, less than 10")
        cli.check(not rate or self.train_text_encoder, f"{option}: goes with --train_text_encoder")
        cli.check(
            not rate or self.optimizer != "prodigy",
            f"{option}: --optimizer prodigy finds one step size for everything; leave it out",
        )
        cli.check(
            self.export == "none" or self.method in ("lora", "dora"),
            f"--export {self.export}: --method {self.method} always has those names; leave it out",
        )
