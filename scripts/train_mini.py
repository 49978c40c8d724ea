"""Train the embedded base ``mini`` from scratch on the CPU and write its pipeline folder.

    python scripts/train_mini.py --data FRUITS40 --apart fruit --images 1300000
    python scripts/train_mini.py --data FRUITS40 --images 600000 --start orchard/mini_sd

Stages (features, autoencoder, decoder, denoiser) resume from ``--work`` after a stop. Only checkpoints
written here are read back. A run that starts from a pipeline keeps its autoencoder and
trains its text encoder and UNet further; adapters have to be tuned anew.
"""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import run_options
from mini import autoencoder, captions, card, data, decoder, denoiser, export, loop, perception
from orchard import devices
from orchard.cli import cli
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.files import atomic
from orchard.files.lock import writing
from orchard.images.images import ImageSet

SHARES = {"features": 0.12, "autoencoder": 0.07, "decoder": 0.04, "denoiser": 0.77}
FURTHER = {"features": 0.12, "denoiser": 0.88}
STAGES = {"features": perception, "autoencoder": autoencoder, "decoder": decoder, "denoiser": denoiser}
LATENTS, START, TOKENIZER = "latents.pt", "start", "tokenizer"
IDENTITY = ("data", "start", "focus", "focus_share", "apart", "seed")
SHOWN = 12


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--images", type=int, default=1_300_000, help="images drawn by all stages")
    parser.add_argument("--start", type=Path, help="a pipeline folder written here, to be trained further")
    parser.add_argument("--work", type=Path, default=Path("outputs/mini"), help="checkpoints, log, previews")
    parser.add_argument("--out", type=Path, default=Path("orchard/mini_sd"))
    parser.add_argument("--focus", nargs="*", default=["apple", "banana", "orange"])
    parser.add_argument("--focus_share", type=float, default=0.5, help="share of draws from --focus")
    parser.add_argument(
        "--apart", nargs="*", default=[], help="real sets, as --data of finetune: no copy of them is seen"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Refuse what cannot end well, then run every stage that is not done yet and write the pipeline."""
    args = parse()
    with cli.one_line():
        require(args)
        run_options.require_same(args.work, {name: getattr(args, name) for name in IDENTITY}, "--work")
        with writing(args.work, devices.processes(), "--work"):
            train(args)


def require(args: argparse.Namespace) -> None:
    """Raise `UserError` for the first option that no run can have."""
    cli.check(args.images > 0, f"--images {args.images}: give 1 or more")
    share = args.focus_share
    cli.check(0 <= share <= 1, f"--focus_share {share}: give a share of the draws from 0 to 1")
    names = data.class_names(args.data)
    if unknown := [name for name in args.focus if name not in names]:
        raise UserError(f"--focus {', '.join(unknown)}: not among the classes of --data: {', '.join(names)}")
    real(args)
    if args.start and not (args.work / START).exists():
        export.load(args.start)
    atomic.writable(args.out.parent, "--out")


def train(args: argparse.Namespace) -> None:
    """Every stage, and the pipeline that comes out."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    torch.manual_seed(args.seed)
    steps = steps_of(args)
    print(", ".join(f"{name} {number} steps" for name, number in steps.items()), flush=True)
    photos = seen(args)
    features = perception.train(photos, args.work, steps["features"], args.seed)
    words = export.tokenizer(captions.vocabulary(photos.names), args.work / TOKENIZER)
    photos = perception.believed(photos, features)
    source = kept(args) if args.start else None
    if source:
        vae, start, old = export.load(source)
        start = export.carried(start, old, words)
        latents = autoencoder.encode_all(vae.to(loop.DEVICE), photos, args.work / LATENTS)
    else:
        vae, latents = first_stages(args, photos, features, steps)
        start = None

    def preview(current: denoiser.Denoiser, step: int) -> None:
        pipe = export.pipeline(vae, current, words)
        rows = [export.sample(pipe, prompt, SHOWN) for prompt in shown(args.focus)]
        export.sheet(rows, args.work / f"preview-{step:06d}.png")

    trained = denoiser.train(
        photos,
        latents,
        words,
        args.work,
        steps=steps["denoiser"],
        seed=args.seed,
        focus=tuple(args.focus),
        share=args.focus_share,
        preview=preview,
        start=start,
    )
    pipe = export.pipeline(vae, trained, words)
    past = card.history(args, tuple(SHARES), card.earlier(source))
    size = export.write(pipe, args.out, card.card(args, photos, pipe, past), past)
    print(f"wrote {args.out}: {size / 1e6:.1f} MB")


def shown(focus: Sequence[str]) -> list[str]:
    """Prompts of the previews: plain ones, and such as no photo may answer."""
    plain = [captions.TEMPLATE.format(label=label) for label in focus]
    grounds = [f"{prompt} on blue paper" for prompt in plain]
    scenes = [f"{prompt}, scene background, several" for prompt in plain]
    return [
        *plain,
        *grounds,
        *scenes,
        *(f"a photo of a green {label}, white background" for label in focus[:2]),
    ]


def seen(args: argparse.Namespace) -> data.Photos:
    """The training photos: those of ``--data`` under one label that copy none of ``--apart``."""
    photos = data.unambiguous(data.load(args.data, args.work))
    for name, others in zip(args.apart, real(args), strict=True):
        found = data.apart(photos, others.photos)
        left_out = len(np.unique(photos.photo)) - len(np.unique(found.photo))
        print(f"left out {left_out} photos that copy one of --apart {name}", flush=True)
        photos = found
    return photos


def real(args: argparse.Namespace) -> list[ImageSet]:
    """The sets of ``--apart``."""
    return [sources.load(name, option="--apart") for name in args.apart]


def kept(args: argparse.Namespace) -> Path:
    """``--start`` as this run first found it: its own end may be written over it."""
    folder = args.work / START
    if not folder.exists():
        export.copy(args.start, folder)
    return folder


def first_stages(args: argparse.Namespace, photos: data.Photos, features: perception.Features, steps: dict):
    """The autoencoder, and its latents of every photo."""
    shown = photos.pixels[:: max(1, len(photos.pixels) // SHOWN)][:SHOWN]

    def sheet(vae, name: str) -> None:
        export.sheet([shown, autoencoder.reconstruct(vae, shown)], args.work / f"{name}.png")

    vae = autoencoder.train(
        photos,
        features,
        args.work,
        steps=steps["autoencoder"],
        seed=args.seed,
        preview=lambda vae, step: sheet(vae, f"autoencoder-{step:06d}"),
    )
    latents = autoencoder.encode_all(vae, photos, args.work / LATENTS)
    decoder.train(
        vae,
        photos,
        latents,
        features,
        args.work,
        steps=steps["decoder"],
        seed=args.seed,
        preview=lambda vae, step: sheet(vae, f"decoder-{step:06d}"),
    )
    return vae, latents


def steps_of(args: argparse.Namespace) -> dict[str, int]:
    """Steps of each stage."""
    shares = FURTHER if args.start else SHARES
    steps = {name: math.ceil(share * args.images / STAGES[name].BATCH) for name, share in shares.items()}
    if (args.work / LATENTS).exists():
        # The denoiser has learned on these latents: more images do not reopen what made and chose them.
        steps |= {name: 0 for name in ("features", "autoencoder") if name in steps}
    return steps


if __name__ == "__main__":
    main()
