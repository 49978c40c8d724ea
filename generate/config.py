"""Options of `python -m generate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchard import cli

Scheduler = Literal["dpmsolver++", "ddim", "euler", "euler_a", "unipc", "base"]


@dataclass(frozen=True, kw_only=True)
class Generate(cli.Common):
    """Sample a labelled synthetic set from LoRA adapters into Parquet shards."""

    lora: tuple[str, ...] = ()
    """LoRA files, looked for here and then in adapters/; none samples the untuned base (a control)."""
    base: str = ""
    """Base model; by default the one the adapter was made for, mini without an adapter."""
    classes: tuple[str, ...] = ()
    """Classes to sample: by default all that the adapters were trained on."""
    count: int = 200
    """Images a class."""
    steps: int = 20
    """Sampling steps."""
    guidance: float = 2.0
    """Guidance scale; 1 turns classifier-free guidance off."""
    scheduler: Scheduler = "dpmsolver++"
    """Sampler; `base` keeps the base model's own."""
    prompt: str = ""
    """Prompt template with {label}; by default the one the adapter was trained with."""
    batch_size: int = 16
    """Images sampled at once."""
    shard_size: int = 256
    """Images a shard file."""
    output: Path = Path("shards")
    """Folder of the synthetic set."""

    def check(self) -> None:
        """Raise `UserError` on a value out of range."""
        for name in ("count", "steps", "batch_size", "shard_size"):
            value = getattr(self, name)
            cli.check(value >= 1, f"--{name} {value}: give 1 or more")
        cli.check(self.guidance >= 0, f"--guidance {self.guidance}: give 0 or more")
        cli.check(self.seed >= 0, f"--seed {self.seed}: give 0 or more")
        cli.check(
            not self.prompt or "{label}" in self.prompt, f"--prompt {self.prompt!r}: has no {{label}} in it"
        )
