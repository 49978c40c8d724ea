"""The command line of `finetune/train_lora.py`: its options together, and what excludes what."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from finetune.options import (
    Adapter,
    Captioning,
    Checkpoints,
    Images,
    Loss,
    Monitoring,
    Optimization,
    Prior,
    Privacy,
    Scope,
    Validation,
)
from orchard import prompt_template
from orchard.cli import cli

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
    **dict.fromkeys(("dp_epsilon", "dp_delta"), 0),
}
"""Lower limits of options."""

NOT_PRIVATE = {
    "method": "gradients of single photos are taken of LoRA layers alone",
    "train_text_encoder": "photos of one prompt share its pass through the text encoder",
    "num_vectors": "photos of one prompt share its pass through the text encoder",
    "quantize": "it is not tested with gradients of single photos",
    "gradient_checkpointing": "it computes layers twice, and would count gradients of single photos twice",
    "compile": "gradients of single photos are taken by hooks, which it leaves out",
    "balance": "each photo has to join a step by a chance of its own",
    "buckets": "each photo has to join a step by a chance of its own",
    "prior_weight": "prior images are no photos whose gradients are clipped",
    "validate_every": "losses of photos are not covered",
}
"""Options that must be left out with ``--dp_epsilon``, and why."""
HIGHEST_EPSILON = 100.0
"""Where a guarantee has long stopped to mean anything, and its accounting takes minutes."""


def with_trigger(trigger: str, text: str) -> str:
    """A caption or template with the trigger phrase before it."""
    return f"{trigger}, {text}" if trigger else text


@dataclass(frozen=True, kw_only=True)
class TrainLora(
    Scope,
    Captioning,
    Adapter,
    Optimization,
    Privacy,
    Loss,
    Prior,
    Images,
    Validation,
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
        self._require_private()
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
        cli.check(
            self.trigger == self.trigger.strip() and not {"{", "}"} & {*self.trigger},
            f"--trigger {self.trigger!r}: give plain words, without braces and spaces around them",
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
            (1 < cycles <= self.steps) if restarts else cycles == 1,
            f"--lr_num_cycles {cycles}: "
            + (
                f"--lr_scheduler cosine_with_restarts needs 2 to {self.steps}, the number of --steps"
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
                f"--push_to_hub: not for {method}; `hf upload NAME FOLDER` takes a folder, whose "
                "orchard.json names --base and --data as they are here",
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
        cli.require_distinct("--rank_pattern", [one.partition("=")[0] for one in self.rank_pattern])
        for pattern in self.rank_pattern:
            part, _, rank = pattern.partition("=")
            cli.check(
                bool(part) and rank.isascii() and rank.isdigit() and 1 <= int(rank) <= 128,
                f"--rank_pattern {pattern}: give PART=RANK with a rank of 1 to 128, as in mid_block=32",
            )

    def _require_private(self) -> None:
        """What goes with differential privacy, and what does not."""
        epsilon, delta = self.dp_epsilon, self.dp_delta
        if not epsilon:
            cli.check(not delta, f"--dp_delta {delta:g}: goes with --dp_epsilon, such as 8")
            return
        cli.check(epsilon <= HIGHEST_EPSILON, f"--dp_epsilon {epsilon:g}: give {HIGHEST_EPSILON:g} or less")
        cli.check(self.max_grad_norm > 0, "--max_grad_norm 0: --dp_epsilon needs a norm to clip photos to")
        for name, why in NOT_PRIVATE.items():
            value = getattr(self, name)
            given = f"--{name}" if value is True else f"--{name} {value}"
            cli.check(
                value == getattr(TrainLora, name),
                f"{given}: does not go with --dp_epsilon, since {why}; leave it out",
            )
        cli.check(
            self.captions != "context",
            "--captions context: does not go with --dp_epsilon, since the adapter's header says the contexts "
            "of photos; give own or none",
        )
        cli.check(
            self.log_with in ("none", "tensorboard"),
            f"--log_with {self.log_with}: does not go with --dp_epsilon, since it may publish losses, which "
            "are not covered; give tensorboard or none",
        )
