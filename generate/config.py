"""Options of `python -m generate`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchard import cli, prompts

Screen = Literal["flat", "duplicate", "memorised", "off_class", "none"]
Scheduler = Literal["dpmsolver++", "ddim", "euler", "euler_a", "unipc", "base"]


@dataclass(frozen=True, kw_only=True)
class Generate(cli.Sharing):
    """Sample a labelled synthetic set from LoRA adapters into Parquet shards."""

    lora: tuple[str, ...] = ()
    """LoRA files, looked for here and then in adapters/; none samples the untuned base (a control)."""
    base: str = ""
    """Base model; by default the one the adapter was made for, mini without an adapter."""
    classes: tuple[str, ...] = ()
    """Classes to sample: by default all that the adapters were trained on."""
    count: int = 200
    """Images a class."""
    steps: int = 0
    """Sampling steps; 0 takes 10 on mini, where more did not help (docs/fruit.md), 20 on other bases."""
    guidance: float = 2.0
    """Guidance scale; 1 turns classifier-free guidance off."""
    scheduler: Scheduler = "dpmsolver++"
    """Sampler; `base` keeps the base model's own. SD 3 takes dpmsolver++, euler and base."""
    prompt: str = ""
    """Prompt template with {label}; by default the one the adapter was trained with."""
    batch_size: int = 16
    """Images sampled at once."""
    shard_size: int = 256
    """Images a shard file."""
    screens: tuple[Screen, ...] = ("flat", "duplicate")
    """What keeps images out, or none: flat ones, near-duplicates of earlier ones of the class, near copies of
    --data's training images (memorised), what --screen_classifier takes for another class (off_class)."""
    screen_classifier: Path | None = None
    """Folder that python -m classify wrote, for --screens off_class; train it on real training images."""
    reject_limit: float = 1.0
    """Images of a class that may be rejected, as a multiple of its count, before the run stops short."""
    output: str = "shards"
    """Folder of the synthetic set, here or behind an fsspec URL (s3://bucket/set)."""

    def require_valid(self) -> None:
        """Raise `UserError` naming the first option that is out of range."""
        super().require_valid()
        cli.require_distinct("--classes", self.classes)
        for name, most in (("count", 10**8), ("batch_size", 4096), ("shard_size", 10**6)):
            value = getattr(self, name)
            cli.check(1 <= value <= most, f"--{name} {value}: give 1 to {most}")
        cli.check(0 <= self.steps <= 1000, f"--steps {self.steps}: give 1 to 1000, or 0 for the base's usual")
        files = -(-self.count // self.shard_size)
        cli.check(files <= 10**5, f"--shard_size {self.shard_size}: makes {files} files a class; give more")
        cli.check(0 <= self.guidance < math.inf, f"--guidance {self.guidance}: give 0 or more")
        cli.check(self.reject_limit >= 0, f"--reject_limit {self.reject_limit}: give 0 or more")
        if self.prompt:
            prompts.require_place(self.prompt)
        self._require_screens()

    def _require_screens(self) -> None:
        cli.require_distinct("--screens", self.screens)
        cli.check("none" not in self.screens or len(self.screens) == 1, "--screens none: name it alone")
        cli.check(
            ("off_class" in self.screens) == (self.screen_classifier is not None),
            "--screens off_class and --screen_classifier FOLDER go together: give both, or neither",
        )
        cli.check(
            not self.push_to_hub or "://" not in str(self.output),
            f"--push_to_hub uploads a local folder, not {self.output}; give another --output",
        )
