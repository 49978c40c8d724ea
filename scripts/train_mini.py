"""Train the embedded base ``mini`` from scratch on the CPU and write its pipeline folder.

    python scripts/train_mini.py --data FRUITS40 --hours 1.25

Stages (features, autoencoder, denoiser) resume from ``--work`` after a stop. Only checkpoints
written here are read back.
"""

import argparse
import os
from pathlib import Path

import torch
from PIL import Image

from mini import autoencoder, data, denoiser, export, perception

SHARES = {"features": 0.03, "autoencoder": 0.2, "denoiser": 0.77}
CARD = """---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
---

# mini

A Stable Diffusion pipeline of {millions:.1f} M weights, trained from scratch on a CPU for 64x64 pictures of
40 kinds of fruit. Prompts it knows: `a photo of banana`, with `, white background` or
`, scene background` after it. It knows nothing else: no other objects, no styles, no sentences.

| | |
|---|---|
| training photos | {photos} web photos (Fruits-40-EU), cropped to the photo, centre square, 64 px |
| budget | {hours} hours on {threads} CPU threads, bf16 |
| images seen by the denoiser | {seen} |
| drawn from {focus} | {share:.0%} of the draws |
| seed | {seed} |
| prediction | v-prediction, zero terminal SNR |

Its pictures are small and its knowledge ends at those fruits. Labels of the training photos are noisy.
"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--hours", type=float, default=1.25, help="training time in all")
    parser.add_argument("--work", type=Path, default=Path("outputs/mini"), help="checkpoints, log, previews")
    parser.add_argument("--out", type=Path, default=Path("orchard/mini_sd"))
    parser.add_argument("--focus", nargs="*", default=["apple", "banana", "orange"])
    parser.add_argument("--focus_share", type=float, default=0.3, help="share of draws from --focus")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run every stage that is not done yet, then write the pipeline."""
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(args.seed)
    seconds = {name: share * args.hours * 3600 for name, share in SHARES.items()}
    print({name: f"{value / 60:.0f} min" for name, value in seconds.items()}, flush=True)
    photos = data.load(args.data, args.work)
    features = perception.train(photos, args.work, seconds["features"], args.seed)
    vae = autoencoder.train(photos, features, args.work, seconds["autoencoder"], args.seed)
    pairs = [photos.pixels[:32], autoencoder.reconstruct(vae, photos.pixels[:32])]
    rows = [half.transpose(1, 0, 2, 3).reshape(64, -1, 3) for half in pairs]
    Image.fromarray(torch.cat([torch.from_numpy(r) for r in rows]).numpy()).save(
        args.work / "autoencoder.png"
    )
    latents = autoencoder.encode_all(vae, photos, args.work / "latents.pt")
    words = export.tokenizer(photos.captions())

    def preview(current: denoiser.Denoiser, step: int) -> None:
        pipe = export.pipeline(vae, current, words)
        export.sheet(pipe, [*args.focus, "pear"], 12, args.work / f"preview-{step:06d}.png")

    trained = denoiser.train(
        photos,
        latents,
        words,
        args.work,
        seconds=seconds["denoiser"],
        seed=args.seed,
        focus=tuple(args.focus),
        share=args.focus_share,
        preview=preview,
    )
    pipe = export.pipeline(vae, trained, words)
    size = export.write(pipe, args.out, _card(args, photos, pipe))
    print(f"wrote {args.out}: {size / 1e6:.1f} MB")


def _card(args: argparse.Namespace, photos: data.Photos, pipe) -> str:
    modules = (pipe.unet, pipe.vae, pipe.text_encoder)
    step = torch.load(args.work / "denoiser.pt", weights_only=True)["step"]
    return CARD.format(
        millions=sum(p.numel() for module in modules for p in module.parameters()) / 1e6,
        photos=len(photos.labels),
        hours=args.hours,
        threads=torch.get_num_threads(),
        seen=f"{step * denoiser.BATCH:,}",
        focus=", ".join(args.focus),
        share=args.focus_share,
        seed=args.seed,
    )


if __name__ == "__main__":
    main()
