"""The dataset card: a README.md that tells `datasets` where the split is and people where it came from."""

import json
from pathlib import Path
from typing import Any

from orchard import cards
from orchard.run import whole_file

NAME = "README.md"


def write(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``README.md`` beside the shards."""
    with whole_file(folder / NAME) as aside:
        aside.write_text(render(manifest), encoding="utf-8")


def render(manifest: dict[str, Any]) -> str:
    """Card text: YAML head, counts, how each class was made, what the set is not."""
    head = {
        "license": "other",
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "lora", "stable-diffusion"],
        "size_categories": [_size(sum(manifest["rows"].values()))],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
        ],
    }
    classes = [
        [label, manifest["rows"][label], a["prompt"], a["base"], a["lora"][:12] or "none"]
        for label, a in manifest["arguments"].items()
    ]
    lines = [
        cards.head(head),
        "# Synthetic images",
        "",
        "Every image here was sampled from a diffusion model; none is a photograph. Each row carries its "
        "prompt, seed, steps, guidance and scheduler, and the hashes of the adapter it came from.",
        "",
        cards.table(["class", "images", "prompt", "base", "adapter"], classes),
        "",
        f"The adapters were trained on {len(manifest['trained_on'])} real images, whose SHA-256 hashes are "
        "in `manifest.json`: do not score a classifier trained on this set on any of them.",
        "",
        "```json",
        json.dumps(manifest["arguments"], indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def _size(rows: int) -> str:
    """The Hub's size category of a row count."""
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in steps if rows < limit), "1M<n<10M")
