"""What needs a GPU, tried on this one: ``make gpu``, or

    python scripts/gpu_check.py [--bases sd15 sdxl] [--pixels 256] [--output gpu_check]

Trains and samples by the commands on random weights of the released models' sizes, in each precision and with
each saver of memory, and compares with the same command on the CPU in float32: the first losses, and pixels.
Prints a table for an issue and writes it to ``--output``. Without a GPU, `--bases mini` tries what a CPU can.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench import page, released
from orchard import shards
from orchard.adapters import adapter
from orchard.images.images import pixels

HERE = Path(__file__).parent
STEPS, SAMPLED = 6, 4
"""Training steps, which all losses are of, and sampling steps."""
SPEED = re.compile(r"([\d.]+)/s")
GPU = torch.cuda.is_available()


@dataclass(frozen=True)
class Check:
    """Options of a command, and how far it may be from float32 on the CPU."""

    options: str
    tolerance: float
    """Share of the loss; grey levels of 255, on average over all pixels."""
    gpu: bool = True
    """Whether only a GPU can."""


TRAINING = (
    Check("--precision fp32", 1e-3, gpu=False),
    Check("--precision bf16", 2e-2, gpu=False),
    Check("--precision fp16", 2e-2),
    Check("--precision bf16 --gradient_checkpointing", 2e-2, gpu=False),
    Check("--precision bf16 --optimizer adamw8bit", 2e-2),
    Check("--precision bf16 --quantize int8", 5e-2),
    Check("--precision bf16 --quantize nf4", 1e-1),
    Check("--precision bf16 --compile", 2e-2),
)
SAMPLING = (
    Check("--precision fp32", 1, gpu=False),
    Check("--precision bf16", 6, gpu=False),
    Check("--precision fp16", 3),
    Check("--precision bf16 --low_memory", 6, gpu=False),
    Check("--precision bf16 --offload model", 6),
    Check("--precision bf16 --offload layers", 6),
    Check("--precision bf16 --compile", 6),
)


def main() -> None:
    """Run every check, print the table, and end with 1 if one failed or was too far off."""
    args = arguments()
    table = Table("base", "what", "off by", "speed", "peak", "seconds", "outcome")
    wrong = 0
    for name in args.bases:
        (args.output / name).mkdir(parents=True)
        base = prepared(name, args)
        for row in checked(name, base, args.output / name):
            table.add_row(name, *row)
            wrong += not row[-1].startswith(("ok", "skipped"))
        shutil.rmtree(args.output / name)
    device = torch.cuda.get_device_name() if GPU else page.processor()
    said = f"{device}, torch {torch.__version__}"
    Console().print(table)
    print(said)
    (args.output / "table.md").write_text(f"{said}\n\n{page.markdown(table)}\n", encoding="utf-8")
    print(f"wrote {args.output / 'table.md'}: paste it into an issue")
    raise SystemExit(bool(wrong))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bases", nargs="+", default=["sd15", "sdxl"], choices=["mini", "sd15", "sdxl"])
    parser.add_argument("--pixels", type=int, default=256, help="side of the images")
    parser.add_argument("--output", type=Path, default=Path("gpu_check"))
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"--output {args.output}: is there already")
    return args


def prepared(name: str, args: argparse.Namespace) -> str:
    """The base, written to a folder where it is not the embedded one."""
    folder = args.output / name / "base"
    if name == "mini":
        return name
    released.pipeline(name, torch.float16, args.pixels).save_pretrained(folder)
    return str(folder)


def checked(name: str, base: str, work: Path) -> Iterator[tuple[str, ...]]:
    """A row for each check, and before them one for each command on the CPU in float32."""
    for what, checks, start, read, unit in (
        ("train", TRAINING, training(base), losses, 100.0),
        ("generate", SAMPLING, sampling(base, work / "train-cpu" / "apple.safetensors"), drawn, 1.0),
    ):
        reference = work / f"{what}-cpu"
        outcome, *took = run([*start, "--precision", "fp32"], reference, gpu=False)
        yield f"{what}, CPU, fp32", "", *took, outcome
        if outcome != "ok":
            return
        for check in checks:
            label, folder = f"{what} {check.options}", work / "checked"
            if check.gpu and not GPU:
                yield label, "", "", "", "", "skipped: no GPU"
                continue
            outcome, *took = run([*start, *check.options.split()], folder, gpu=True)
            off = float(np.abs(read(folder) - read(reference)).mean()) if outcome == "ok" else np.nan
            scale = float(np.abs(read(reference)).mean()) if unit == 100 else 1.0
            if off / scale > check.tolerance:
                outcome = f"too far off: at most {check.tolerance * unit:g}"
            share = f"{off / scale * unit:.2g}{'%' if unit == 100 else ' levels'}" if off == off else ""
            yield label, share, *took, outcome
            shutil.rmtree(folder, ignore_errors=True)
    if torch.cuda.device_count() > 1:
        yield two_processes(base, work)
        for precision in ("fp32", "bf16", "fp16"):
            yield two_classify(work, precision)


def training(base: str) -> list[str]:
    """A command that trains a small adapter on rendered photos."""
    options = f"--data demo --classes apple --steps {STEPS} --batch_size 1 --rank 4 --learning_rate 1e-4"
    return ["finetune.train_lora", "--base", base, "--no-sheets", *options.split()]


def sampling(base: str, lora: Path) -> list[str]:
    """A command that samples two images with that adapter."""
    options = f"--data demo --count 2 --batch_size 2 --steps {SAMPLED} --screens none"
    return ["generate", "--base", base, "--lora", str(lora), *options.split()]


def run(words: Sequence[str], output: Path, *, gpu: bool, launcher: Sequence[str] = ()) -> tuple[str, ...]:
    """Run a command; its outcome, speed, peak of GPU memory and seconds."""
    watched = output.with_suffix(".json")
    start = [*(launcher or (sys.executable,)), str(HERE / "bench" / "watched.py"), str(watched)]
    seen = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*start, *words, "--output", str(output)],
        env={**os.environ, **seen, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    speeds = SPEED.findall(done.stderr + done.stdout)
    took = json.loads(watched.read_text()) if watched.exists() else {"seconds": 0.0, "peak": None}
    peak = f"{took['peak'] / 2**30:.2f} GiB" if took["peak"] else ""
    outcome = "ok"
    if done.returncode:
        outcome = "failed: " + "".join(done.stderr.strip().splitlines()[-1:])[:200]
    return outcome, f"{speeds[-1]}/s" if speeds else "", peak, f"{took['seconds']:.0f}"


def losses(folder: Path) -> np.ndarray:
    """(1,) the adapter's mean loss, as it says itself."""
    provenance = adapter.read(folder / "apple.safetensors").provenance
    assert provenance is not None
    return np.array(list(provenance.losses.values()))


def drawn(folder: Path) -> np.ndarray:
    """(2, S, S, 3) the sampled images."""
    photos = shards.read(folder).photos
    return pixels(photos, photos[0].image().width).astype(float)


def two_processes(base: str, work: Path) -> tuple[str, ...]:
    """Two GPUs train the adapter of one, to rounding."""
    words = [*training(base), "--batch_size", "2", "--precision", "fp32"]
    return together("train, two processes", words, work / "adapters", losses, 1e-3)


def two_classify(work: Path, precision: str) -> tuple[str, ...]:
    """Two GPUs train a classifier as one does; rounding grows with each step."""
    options = "--train demo --test demo --model resnet18 --size 64 --steps 3 --batch_size 24"
    words = ["classify", *options.split(), "--learning_rate", "1e-4", "--precision", precision]
    return together(
        f"classify {precision}, two processes", words, work / f"{precision} classifiers", answers, 0.05
    )


def together(
    label: str, words: Sequence[str], work: Path, read: Callable[[Path], np.ndarray], tolerance: float
) -> tuple[str, ...]:
    """A row: one command by one GPU and by two, which may be off by a share of the mean."""
    alone, *_ = run(words, work / "one", gpu=True)
    outcome, *took = run(words, work / "two", gpu=True, launcher=["torchrun", "--nproc_per_node", "2"])
    if (alone, outcome) != ("ok", "ok"):
        return label, "", *took, outcome if alone == "ok" else alone
    one, two = read(work / "one"), read(work / "two")
    off = float(np.abs(one - two).mean() / one.mean())
    outcome = "ok" if off < tolerance else f"too far off: at most {tolerance * 100:g}%"
    return label, f"{off * 100:.2g}%", *took, outcome


def answers(folder: Path) -> np.ndarray:
    """(N, K) probabilities of the test images."""
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return np.array([[*json.loads(line)["probabilities"].values()] for line in lines])


if __name__ == "__main__":
    main()
