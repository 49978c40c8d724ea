"""Train the embedded base ``mini`` from scratch on the CPU and write its pipeline folder.

    python scripts/train_mini.py --data FRUITS40 --hours 2.6
    python scripts/train_mini.py --data FRUITS40 --hours 1.5 --start orchard/mini_sd

Stages (features, autoencoder, decoder, denoiser) resume from ``--work`` after a stop. Only checkpoints
written here are read back. A run that starts from a pipeline keeps its autoencoder and
trains its text encoder and UNet further; adapters have to be tuned anew.
"""

import argparse
import json
import os
from pathlib import Path

import torch

from mini import autoencoder, captions, data, decoder, denoiser, export, loop, perception, quality

SHARES = {"features": 0.03, "autoencoder": 0.15, "decoder": 0.07, "denoiser": 0.75}
FURTHER = {"features": 0.1, "denoiser": 0.9}
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
| training photos | {photos} web photos (Fruits-40-EU), cropped to the photo, 64 px |
| framing | on white backgrounds whole, scenes whole or by their middle square |
| cost | {cost} on {threads} CPU threads, bf16 |
| images seen by the denoiser | {seen} |
| drawn from {focus} | {share} of the draws{last} |
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
    parser.add_argument("--start", type=Path, help="a pipeline folder written here, to be trained further")
    parser.add_argument("--work", type=Path, default=Path("outputs/mini"), help="checkpoints, log, previews")
    parser.add_argument("--out", type=Path, default=Path("orchard/mini_sd"))
    parser.add_argument("--focus", nargs="*", default=["apple", "banana", "orange"])
    parser.add_argument("--focus_share", type=float, default=0.5, help="share of draws from --focus")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not list(args.data.glob(data.FILES)):
        parser.error(f"--data {args.data}: no Parquet files there")
    if args.start and not (args.start / export.HISTORY).is_file():
        parser.error(f"--start {args.start}: no {export.HISTORY} there; give a folder that this script wrote")
    if differing := claim(args):
        parser.error(f"--work {args.work}: holds a run with another {differing}; give another folder")
    return args


def claim(args: argparse.Namespace) -> str:
    """The first option by which a run in ``--work`` differs from this one, "" if none does.

    What lies there is taken as it is, so one run only may go on with it.
    """
    options = {name: str(getattr(args, name)) for name in ("data", "start", "focus", "focus_share", "seed")}
    path = args.work / "options.json"
    if path.exists():
        earlier = json.loads(path.read_text())
        return next((f"--{name}" for name in options if options[name] != earlier[name]), "")
    args.work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(options, indent=2) + "\n")
    return ""


def main() -> None:
    """Run every stage that is not done yet, then write the pipeline."""
    args = parse()
    earlier = before(args) if args.start else {}
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(args.seed)
    seconds = budget(args)
    print({name: f"{value / 60:.0f} min" for name, value in seconds.items()}, flush=True)
    photos = data.load(args.data, args.work)
    features = perception.train(photos, args.work, seconds["features"], args.seed)
    if args.start:
        vae, start, words = export.load(args.start)
        latents = autoencoder.encode_all(vae, photos, args.work / LATENTS)
    else:
        vae, latents = first_stages(args, photos, features, seconds)
        start, words = None, export.tokenizer(captions.table(photos.names))

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
        start=start,
    )
    pipe = export.pipeline(vae, trained, words)
    spent = history(args.work, earlier)
    size = export.write(pipe, args.out, card(args, photos, features, pipe, spent), spent)
    print(f"wrote {args.out}: {size / 1e6:.1f} MB")


def before(args: argparse.Namespace) -> dict[str, dict]:
    """The history of ``--start`` as this run first found it: its own end may be written over it."""
    kept = args.work / export.HISTORY
    if not kept.exists():
        kept.write_text((args.start / export.HISTORY).read_text())
    return json.loads(kept.read_text())


def first_stages(args: argparse.Namespace, photos: data.Photos, features: perception.Features, seconds: dict):
    """The autoencoder, and its latents of every photo."""
    vae = autoencoder.train(photos, features, args.work, seconds["autoencoder"], args.seed)
    shown = photos.pixels[:: len(photos.pixels) // SHOWN][:SHOWN]
    before = autoencoder.reconstruct(vae, shown)
    latents = autoencoder.encode_all(vae, photos, args.work / LATENTS)
    decoder.train(vae, photos, latents, features, args.work, seconds["decoder"], args.seed)
    export.sheet([shown, before, autoencoder.reconstruct(vae, shown)], args.work / "autoencoder.png")
    return vae, latents


def budget(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each stage."""
    shares = FURTHER if args.start else SHARES
    seconds = {name: share * args.hours * 3600 for name, share in shares.items()}
    if not args.start and (args.work / LATENTS).exists():
        # The denoiser has learned on these latents: more hours do not reopen what made them.
        seconds |= {"features": 0.0, "autoencoder": 0.0}
    return seconds


def history(work: Path, earlier: dict) -> dict[str, dict]:
    """Training seconds and steps of each stage, those of the pipeline that was started from included."""
    total = {name: dict(stage) for name, stage in earlier.items()}
    for name in SHARES:
        if (path := work / f"{name}.pt").exists():
            stage = total.setdefault(name, {"seconds": 0, "steps": 0})
            seconds, steps = loop.spent(path)
            stage["seconds"] += round(seconds)
            stage["steps"] += steps
    return total


def card(
    args: argparse.Namespace, photos: data.Photos, features: perception.Features, pipe, spent: dict
) -> str:
    """The model card, with what was spent and what the result can do."""
    modules = (pipe.unet, pipe.vae, pipe.text_encoder)
    named = []
    for name in args.focus:
        label = photos.names.index(name)
        made = quality.named_right(features, export.sample(pipe, name, JUDGED), label)
        real = quality.named_right(features, photos.pixels[photos.labels == label], label)
        named.append(f"{name} {made:.0%} ({real:.0%})")
    steps = loop.spent(args.work / "denoiser.pt")[1]
    return CARD.format(
        millions=sum(p.numel() for module in modules for p in module.parameters()) / 1e6,
        phrases=", ".join(f"`, {word}`" for words in captions.PHRASES for word in words if word),
        photos=f"{len(photos.labels):,}",
        cost=", ".join(f"{name} {stage['seconds'] / 60:.0f} min" for name, stage in spent.items()),
        threads=torch.get_num_threads(),
        seen=f"{spent['denoiser']['steps'] * denoiser.BATCH:,}",
        focus=", ".join(args.focus),
        share=f"{args.focus_share:.0%}",
        last=f" of the last {steps * denoiser.BATCH:,}" if args.start else "",
        seed=args.seed,
        named=", ".join(named),
        **quality.reconstruction(pipe.vae, photos),
    )


if __name__ == "__main__":
    main()
