"""Train the embedded base ``mini`` from scratch on the CPU and write its pipeline folder.

    python scripts/train_mini.py --data FRUITS40 --hours 2.6

Stages (features, autoencoder, decoder, denoiser) resume from ``--work`` after a stop. Only checkpoints
written here are read back.
"""

import argparse
import os
from pathlib import Path

import torch

from mini import autoencoder, captions, data, decoder, denoiser, export, loop, perception, quality

SHARES = {"features": 0.03, "autoencoder": 0.15, "decoder": 0.07, "denoiser": 0.75}
LATENTS = "latents.pt"
SHOWN, JUDGED = 12, 64
CARD = """---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
---

# mini

A Stable Diffusion pipeline of {millions:.1f} M weights, trained from scratch on a CPU for 64x64 pictures of
40 kinds of fruit. Prompts it knows: `a photo of banana`, and after it any of
{phrases}. It knows nothing else: no other objects, no
styles, no sentences.

| | |
|---|---|
| training photos | {photos} web photos (Fruits-40-EU), cropped to the photo, centre square, 64 px |
| cost | {cost} on {threads} CPU threads, bf16 |
| images seen by the denoiser | {seen} |
| drawn from {focus} | {share} of the draws |
| seed | {seed} |
| prediction | v-prediction, zero terminal SNR |
| autoencoder | L1 {l1:.3f} in [-1, 1], {detail:.0%} of the photos' fine detail (energy of the Laplacian) |
| named right | {named} |

*Named right*: how often the small classifier of the first stage, trained on the same noisy labels, gives a
picture its name out of 40; in brackets for the training photos of that name.

Its pictures are small and its knowledge ends at those fruits. Labels of the training photos are noisy.
"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--hours", type=float, default=2.6, help="training time in all")
    parser.add_argument("--work", type=Path, default=Path("outputs/mini"), help="checkpoints, log, previews")
    parser.add_argument("--out", type=Path, default=Path("orchard/mini_sd"))
    parser.add_argument("--focus", nargs="*", default=["apple", "banana", "orange"])
    parser.add_argument("--focus_share", type=float, default=0.5, help="share of draws from --focus")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run every stage that is not done yet, then write the pipeline."""
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(args.seed)
    seconds = budget(args)
    print({name: f"{value / 60:.0f} min" for name, value in seconds.items()}, flush=True)
    photos = data.load(args.data, args.work)
    features = perception.train(photos, args.work, seconds["features"], args.seed)
    vae = autoencoder.train(photos, features, args.work, seconds["autoencoder"], args.seed)
    shown = photos.pixels[:: len(photos.pixels) // SHOWN][:SHOWN]
    before = autoencoder.reconstruct(vae, shown)
    latents = autoencoder.encode_all(vae, photos, args.work / LATENTS)
    decoder.train(vae, photos, latents, features, args.work, seconds["decoder"], args.seed)
    export.sheet([shown, before, autoencoder.reconstruct(vae, shown)], args.work / "autoencoder.png")
    words = export.tokenizer(captions.table(photos.names))

    def preview(current: denoiser.Denoiser, step: int) -> None:
        pipe = export.pipeline(vae, current, words)
        rows = [export.sample(pipe, label, SHOWN) for label in [*args.focus, "pear"]]
        export.sheet(rows, args.work / f"preview-{step:06d}.png")

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
    size = export.write(pipe, args.out, card(args, photos, features, pipe))
    print(f"wrote {args.out}: {size / 1e6:.1f} MB")


def budget(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each stage."""
    seconds = {name: share * args.hours * 3600 for name, share in SHARES.items()}
    if (args.work / LATENTS).exists():
        # The denoiser has learned on these latents: more hours do not reopen what made them.
        seconds |= {"features": 0.0, "autoencoder": 0.0}
    return seconds


def card(args: argparse.Namespace, photos: data.Photos, features: perception.Features, pipe) -> str:
    """The model card, with what was spent and what the result can do."""
    spent = {name: loop.spent(args.work / f"{name}.pt") for name in SHARES}
    modules = (pipe.unet, pipe.vae, pipe.text_encoder)
    named = []
    for name in args.focus:
        label = photos.names.index(name)
        made = quality.named_right(features, export.sample(pipe, name, JUDGED), label)
        real = quality.named_right(features, photos.pixels[photos.labels == label], label)
        named.append(f"{name} {made:.0%} ({real:.0%})")
    return CARD.format(
        millions=sum(p.numel() for module in modules for p in module.parameters()) / 1e6,
        phrases=", ".join(f"`, {word}`" for words in captions.PHRASES for word in words if word),
        photos=f"{len(photos.labels):,}",
        cost=", ".join(f"{name} {seconds / 60:.0f} min" for name, (seconds, _) in spent.items()),
        threads=torch.get_num_threads(),
        seen=f"{spent['denoiser'][1] * denoiser.BATCH:,}",
        focus=", ".join(args.focus),
        share=f"{args.focus_share:.0%}",
        seed=args.seed,
        named=", ".join(named),
        **quality.reconstruction(pipe.vae, photos),
    )


if __name__ == "__main__":
    main()
