"""Differential privacy: gradients of single photos, clipping, noise, accounting, and what stays unsaid."""

import json
import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pipelines
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, DynamoBackend
from safetensors import safe_open
from safetensors.torch import load_file

from evaluate.experiment import image_sets
from finetune.command import train
from finetune.config import TrainLora
from finetune.models import cpu_layers, lora, targets
from finetune.models.families import family_of
from finetune.models.family import Network
from finetune.planning.accelerators import share_batches
from finetune.step.batches import TrainingData, draw_each
from finetune.step.objective import Objective
from finetune.training import learner, private
from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter, provenance
from orchard.bases import bases
from orchard.datasets import sources

pytest.importorskip("opacus")
CPU = torch.device("cpu")
SECRET = bytes(range(32))
PROMISE = {"epsilon": 8.0, "delta": 1e-5, "noise_multiplier": 2.0, "max_grad_norm": 0.5, "sample_rate": 0.5}
PROMISE |= {"steps": 3, "accountant": "prv", "opacus": "1.6.0"}
SMALL = {"data": "demo", "precision": "fp32", "classes": ("apple",), "cache": "none", "sheets": False}
SMALL |= {"steps": 4, "batch_size": 4, "rank": 2, "learning_rate": 0.05, "dp_epsilon": 8.0}


def adapted(folder: Path, *names: str):
    """The family on a tiny base with an adapter that is not at its start, its parameters and four photos."""
    base = bases.resolve(str(folder))
    family = family_of(bases.load(base, torch.float32, CPU), base)
    found = targets.resolve(names, family.pipe, base.family, trains_text=False)
    parameters = lora.inject(family.denoiser, 4, 4, seed=0, targets=found[family.prefix])
    generator = torch.Generator().manual_seed(1)
    for one in parameters:
        one.data = 0.1 * torch.randn(one.shape, generator=generator)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    prompts = ["a photo of apple", "a red apple on a plate", "a photo of apple", "pear"]
    return family, parameters, family.encode(images, prompts)


def loss_of(family, network, batch) -> torch.Tensor:
    """The loss of a batch, weighted where the family knows weights."""
    weighting = "min_snr" if family.name in ("sd", "sdxl") else "none"
    return family.loss(network, batch, Objective(weighting=weighting))


def one_by_one(family, parameters, encoded, rows) -> list[list[torch.Tensor]]:
    """The gradient of each photo in step 3, by a backward pass of its own; without Opacus."""
    network, found = Network(family).train(), []
    for row in rows:
        loss = loss_of(family, network, draw_each(encoded, [row], 3, seed=7, flip=True))
        found.append(list(torch.autograd.grad(loss, parameters, materialize_grads=True)))
    return found


def require_gradients_of_photos(family, parameters, encoded) -> None:
    rows = [3, 0, 1]
    expected = one_by_one(family, parameters, encoded, rows)
    largest = max(one.abs().max() for photo in expected for one in photo)
    assert largest > 1e-4
    network = Network(family).train()
    with private.per_photo_gradients(network):
        loss_of(family, network, draw_each(encoded, rows, 3, seed=7, flip=True)).backward()
        for number, parameter in enumerate(parameters):
            for place, photo in enumerate(expected):
                error = (parameter.grad_sample[place] - photo[number]).abs().max()
                assert error <= 1e-5 * max(1, largest), (number, place)
    assert not any(hasattr(one, "grad_sample") for one in parameters)
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in network.modules())


@pytest.mark.parametrize("names", ["attention", "convolutions"])
@pytest.mark.parametrize("kind", sorted(pipelines.TINY))
def test_gradients_of_photos_are_those_of_a_batch_of_one(kind, names, tmp_path):
    # peft has no LoRA for all convolutions of Sana.
    more = "attention+feedforward" if kind == "sana" else "all"
    require_gradients_of_photos(
        *adapted(pipelines.TINY[kind](tmp_path), names if names == "attention" else more)
    )


def test_gradients_of_photos_are_right_through_the_faster_layers_of_a_cpu(tmp_path, monkeypatch):
    family, parameters, encoded = adapted(pipelines.tiny(tmp_path), "all")
    monkeypatch.setattr(cpu_layers, "HEAVY", 1)
    monkeypatch.setattr(cpu_layers, "POSITIONS", 10_000)
    cpu_layers.optimize_for_cpu(family.denoiser, CPU)
    layers = dict(family.denoiser.named_modules())
    assert any("lora_A" in name for name, one in layers.items() if isinstance(one, cpu_layers.SmallMapConv2d))
    require_gradients_of_photos(family, parameters, encoded)


def test_what_is_drawn_for_a_photo_does_not_depend_on_the_others(tmp_path):
    _, _, encoded = adapted(pipelines.tiny(tmp_path, channels=4), "attention")
    options = {"seed": 1, "flip": True, "noise_offset": 0.1}
    alone, among = draw_each(encoded, [2], 5, **options), draw_each(encoded, [0, 2, 3], 5, **options)
    for name in ("latents", "noise", "times"):
        assert torch.equal(getattr(alone, name)[0], getattr(among, name)[1]), name
    other = draw_each(encoded, [2], 6, **options)
    assert not torch.equal(alone.noise, other.noise)


def test_each_photo_is_clipped_over_all_parameters_together():
    first, second = (torch.nn.Parameter(torch.zeros(*shape)) for shape in ((2,), (1, 1)))
    unused = torch.nn.Parameter(torch.zeros(3))
    first.grad_sample = torch.tensor([[3.0, 0.0], [0.3, 0.0]])
    second.grad_sample = torch.tensor([[[4.0]], [[0.4]]])
    unused.grad_sample = None
    # Norms 5 and 0.5: the first becomes 1/5 of itself, the second stays.
    found = private.clipped_sum([first, second, unused], 2, 1.0)
    assert found[0].tolist() == pytest.approx([0.6 + 0.3, 0.0], abs=1e-5)
    assert found[1].tolist() == [pytest.approx([0.8 + 0.4], abs=1e-5)]
    assert found[2].tolist() == [0, 0, 0]
    assert first.grad_sample is None


def test_a_step_is_the_noisy_sum_over_the_expected_number_and_may_be_noise_alone(tmp_path, monkeypatch):
    family, parameters, encoded = adapted(pipelines.tiny(tmp_path), "attention")
    monkeypatch.setattr("secrets.token_bytes", lambda count: SECRET[:count])
    joined = iter([[3, 0, 1], []])
    monkeypatch.setattr(private, "sampled", lambda *_: next(joined))
    seed = private.stable_hash("photos", SECRET.hex())
    monkeypatch.setattr(private, "draw_each", lambda *a, **o: draw_each(a[0], a[1], 3, **o | {"seed": 7}))
    taken: list[list[torch.Tensor]] = []
    monkeypatch.setattr(
        private, "optimizer_step", lambda optimizer: taken.append([one.grad.clone() for one in parameters])
    )
    expected = one_by_one(family, parameters, encoded, [3, 0, 1])
    config = TrainLora(
        steps=2, batch_size=2, accumulation=1, learning_rate=0.1, dp_epsilon=8, max_grad_norm=0.5
    )
    accelerator = Accelerator()
    trained = learner.prepare(family, parameters, config, accelerator)
    data = TrainingData(photos=encoded, files=list("abcd"))
    steps = list(private.private_steps(family, data, trained, config, accelerator, privacy=PROMISE))
    assert seed and steps[0].loss > 0 and steps[1].loss == 0
    norms = [math.sqrt(sum(one.square().sum().item() for one in photo)) for photo in expected]
    for index in (0, 1):
        noise = private.gaussian(SECRET, index, parameters)
        for number in range(len(parameters)):
            parts = [photo[number] * min(1, 0.5 / norm) for photo, norm in zip(expected, norms, strict=True)]
            total = torch.stack(parts).sum(0) if index == 0 else 0
            assert torch.allclose(taken[index][number], (total + 2.0 * 0.5 * noise[number]) / 2, atol=1e-5)


def test_noise_is_standard_normal_and_nothing_without_the_secret():
    like = [torch.zeros(300, 200), torch.zeros(40_000)]
    drawn = private.gaussian(SECRET, 4, like)
    assert [one.shape for one in drawn] == [one.shape for one in like]
    values = torch.cat([one.flatten() for one in drawn])
    assert values.mean().abs() < 0.015 and (values.std() - 1).abs() < 0.01
    assert (values > statistics.NormalDist().inv_cdf(0.99)).float().mean().item() == pytest.approx(
        0.01, rel=0.1
    )
    assert torch.equal(values[:100], private.gaussian(SECRET, 4, like)[0].flatten()[:100])
    for other in (private.gaussian(SECRET, 5, like), private.gaussian(SECRET[::-1], 4, like)):
        assert abs(np.corrcoef(values, torch.cat([one.flatten() for one in other]))[0, 1]) < 0.02


def test_photos_join_by_chances_of_their_own():
    steps = [private.sampled(SECRET, step, 40, 0.3) for step in range(2000)]
    sizes = np.array([len(rows) for rows in steps])
    assert sizes.mean() == pytest.approx(40 * 0.3, rel=0.02)
    assert sizes.var() == pytest.approx(40 * 0.3 * 0.7, rel=0.1)
    joined = np.zeros((2000, 40))
    for step, rows in enumerate(steps):
        joined[step, rows] = 1
    assert np.abs(joined.mean(0) - 0.3).max() < 0.05
    assert np.abs(np.corrcoef(joined.T) - np.eye(40)).max() < 0.12
    assert private.sampled(SECRET, 0, 5, 1.0) == [0, 1, 2, 3, 4]


def budget(count: int = 64, **options):
    config = TrainLora(**{"batch_size": 16, "accumulation": 1, "dp_epsilon": 2.0, **options})
    return private.budget(config, count, "apple")


def renyi_epsilon(multiplier: float, rate: float, steps: int, delta: float) -> float:
    """An upper bound on epsilon: Mironov et al. 2019, section 3.3, and Mironov 2017, proposition 3."""
    found = []
    for order in range(2, 64):
        terms = [
            math.log(math.comb(order, k))
            + k * math.log(rate)
            + (order - k) * math.log1p(-rate)
            + k * (k - 1) / (2 * multiplier**2)
            for k in range(order + 1)
        ]
        divergence = float(np.logaddexp.reduce(terms)) / (order - 1)
        found.append(steps * divergence + math.log(1 / delta) / (order - 1))
    return min(found)


def test_the_noise_keeps_the_promise_by_another_accountant():
    promise = budget()
    assert promise["sample_rate"] == 0.25 and promise["delta"] == 1e-5
    assert 1.98 < promise["epsilon"] <= 2
    bound = renyi_epsilon(promise["noise_multiplier"], 0.25, 400, 1e-5)
    # The bound is looser than the accountant, though not by much.
    assert promise["epsilon"] <= bound < 1.35 * promise["epsilon"]


def test_with_all_photos_in_each_step_it_is_the_gaussian_mechanism():
    promise = budget(16, steps=9, dp_delta=1e-3)
    assert promise["sample_rate"] == 1.0

    def delta(multiplier: float, epsilon: float) -> float:
        """Of nine releases: Balle and Wang 2018, theorem 8."""
        sigma, phi = multiplier / 3, statistics.NormalDist().cdf
        return phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon * sigma)

    assert delta(promise["noise_multiplier"], 2.0) <= 1e-3
    assert delta(0.97 * promise["noise_multiplier"], 2.0) > 1e-3


def test_no_more_noise_than_the_moments_accountant_was_published_with():
    # Abadi et al. 2016, section 5.1: sigma 4, q 0.01 and 10 000 steps are (1.26, 1e-5)-private.
    promise = budget(1600, steps=10_000, dp_epsilon=1.26, dp_delta=1e-5)
    assert 3 < promise["noise_multiplier"] <= 4
    assert renyi_epsilon(4, 0.01, 10_000, 1e-5) == pytest.approx(1.26, abs=0.005)


def test_delta_follows_the_number_of_photos(refused):
    assert budget(20_000, batch_size=2000)["delta"] == pytest.approx(1 / 200_000)
    with refused("--dp_delta 0.1", "1 / 16", "apple"):
        budget(16, dp_delta=0.1)
    with refused("--dp_epsilon 0.001", "Opacus finds no noise"):
        budget(16, dp_epsilon=0.001)
    assert private.budget(TrainLora(), 16, "apple") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "dora"}, ("--method dora",)),
        ({"train_text_encoder": True}, ("--train_text_encoder:",)),
        ({"num_vectors": 2}, ("--num_vectors 2",)),
        ({"prior_weight": 1.0}, ("--prior_weight 1.0",)),
        ({"captions": "context"}, ("--captions context",)),
        ({"balance": True, "joint": True}, ("--balance:",)),
        ({"buckets": True}, ("--buckets:",)),
        ({"gradient_checkpointing": True}, ("--gradient_checkpointing:",)),
        ({"validate_every": 5}, ("--validate_every 5",)),
        ({"compile": True}, ("--compile:",)),
        ({"quantize": "int8"}, ("--quantize int8",)),
        ({"max_grad_norm": 0.0}, ("--max_grad_norm 0",)),
        ({"log_with": "wandb"}, ("--log_with wandb",)),
        ({"dp_epsilon": 1000.0}, ("--dp_epsilon 1000", "100 or less")),
        ({"dp_epsilon": -1.0}, ("--dp_epsilon -1.0", "0 or more")),
        ({"dp_epsilon": 0.0, "dp_delta": 1e-5}, ("--dp_delta 1e-05", "goes with --dp_epsilon")),
    ],
)
def test_what_privacy_does_not_go_with_is_refused(options, words, refused):
    with refused(*words):
        TrainLora(**{"dp_epsilon": 8.0, **options}).require_valid()


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ({"num_processes": 2}, ("--dp_epsilon", "one process, not 2")),
        ({"distributed_type": DistributedType.FSDP}, ("--dp_epsilon", "FSDP")),
        ({"scaler": object()}, ("--precision fp16", "bf16 or fp32")),
        ({"backend": DynamoBackend.INDUCTOR}, ("--dp_epsilon", "--dynamo_backend")),
    ],
)
def test_launches_that_cannot_clip_single_photos_are_refused(launch, words, refused):
    plain = {"num_processes": 1, "distributed_type": DistributedType.NO, "scaler": None}
    backend = launch.get("backend", DynamoBackend.NO)
    state = SimpleNamespace(dynamo_plugin=SimpleNamespace(backend=backend))
    config = TrainLora(dp_epsilon=8.0, batch_size=4, accumulation=1)
    with refused(*words):
        share_batches(config, SimpleNamespace(**{**plain, **launch}, state=state))


def test_without_opacus_it_is_refused_and_named(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "opacus", None)
    private.require_package(0.0)
    with refused("--dp_epsilon 8", "pip install opacus"):
        private.require_package(8.0)


@pytest.fixture
def quick(monkeypatch) -> None:
    """No search for the noise, which takes seconds."""
    monkeypatch.setattr(private, "_noise_multiplier", lambda epsilon, *_: (2.0, 0.99 * epsilon))


def test_a_caption_that_changes_how_others_are_read_is_refused(base, tmp_path, refused, quick):
    config = TrainLora(base=str(base), output=tmp_path, prompt="a long {label}" + " word" * 40, **SMALL)
    with refused("--dp_epsilon", "captions of apple", "--captions none"):
        train(config)


def run(base: Path, output: Path, **options) -> dict[str, torch.Tensor]:
    """The weights of a private adapter."""
    train(TrainLora(base=str(base), output=output, **{**SMALL, **options}))
    return load_file(output / "apple.safetensors")


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_own_secret_and_two_runs_differ(base, tmp_path, monkeypatch, quick):
    monkeypatch.setattr("secrets.token_bytes", lambda count: SECRET[:count])
    options = {"ema_decay": 0.5, "save_every": 2}
    straight = run(base, tmp_path / "straight", **options)
    assert not list((tmp_path / "straight" / "checkpoints" / "apple").glob("step-*")), "it holds the secret"

    def stop(optimizer, steps=[0]):  # noqa: B006
        steps[0] += 1
        if steps[0] == 4:
            raise KeyboardInterrupt
        return kept(optimizer)

    kept = private.optimizer_step
    monkeypatch.setattr(private, "optimizer_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "off", **options)
    AcceleratorState._reset_state()
    monkeypatch.setattr(private, "optimizer_step", kept)
    monkeypatch.setattr("secrets.token_bytes", lambda count: SECRET[::-1][:count])
    resumed = run(base, tmp_path / "off", resume="latest", **options)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    other = run(base, tmp_path / "other", **options)
    assert not all(torch.equal(straight[key], other[key]) for key in straight)


def test_other_options_of_privacy_do_not_resume(base, tmp_path, refused, quick):
    output = tmp_path / "a"
    run(base, output, precision="bf16")
    before = (output / "apple.safetensors").read_bytes()
    run(base, output, precision="bf16", resume="latest")
    assert (output / "apple.safetensors").read_bytes() == before, "it is finished"
    with refused("--resume latest", "nothing finished"):
        run(base, output, precision="bf16", resume="latest", dp_epsilon=4.0)


def test_nothing_of_single_photos_is_said_and_every_stage_says_so(base, tmp_path, capsys):
    output = tmp_path / "adapters"
    output.mkdir()
    more = {"sheets": True, "batch_size": 20, "dp_epsilon": 1.0}
    (output / "apple-loss.png").write_bytes(b"of an earlier adapter")
    config = TrainLora(base=str(base), output=output, **{**SMALL, **more})
    train(config)
    said = " ".join(capsys.readouterr().out.split())
    assert "privacy apple, experimental: epsilon 0.99" in said and "chance of 0.5" in said
    assert (output / "apple-samples.png").is_file() and not (output / "apple-loss.png").exists()
    found = adapter.read(output / "apple.safetensors").provenance
    real = sources.load("demo", ("apple",))
    assert found.losses == {} and found.trained_on == [] and found.ledger is None
    assert 0.98 < found.privacy["epsilon"] <= 1 and found.privacy["steps"] == 4
    assert found.privacy["sample_rate"] == 0.5
    with safe_open(output / "apple.safetensors", "pt") as file:
        header = file.metadata()[provenance.HEADER]
    assert "photos" not in json.loads(header)["options"]
    card = (output / "README.md").read_text()
    for text in (header, card):
        assert not any(photo.sha256 in text or photo.path in text for photo in real.photos)
    assert "not said" in card and "withheld" in card and "epsilon 0.99" in card

    folder = tmp_path / "shards"
    sampling = {"count": 1, "steps": 2, "scheduler": "base", "data": "demo", "precision": "fp32"}
    generate(Generate(lora=(str(output / "apple.safetensors"),), output=str(folder), **sampling))
    manifest = shards.read_manifest(folder)
    assert manifest["unknown_ledger"] == ["apple"] and manifest["trained_on"] == []
    assert manifest["arguments"]["apple"]["privacy"] == [found.privacy]
    card = (folder / "README.md").read_text()
    assert "**not known** what the generator of apple" in card and "apple: epsilon 0.99" in card
    sets = SimpleNamespace(base=None, manifest=manifest, train=real)
    notes = image_sets.generator_notes(image_sets.Evaluate(), sets)
    assert any("not known what the generator of apple" in note for note in notes)


def test_older_headers_promise_nothing_and_wrong_ones_are_refused(base, tmp_path, refused, quick):
    run(base, tmp_path)
    with safe_open(tmp_path / "apple.safetensors", "pt") as file:
        header = json.loads(file.metadata()[provenance.HEADER])
    older = {name: value for name, value in header.items() if name != "privacy"} | {"schema": 4}
    path = tmp_path / "older.safetensors"
    found = provenance.of_header(path, {provenance.HEADER: json.dumps(older)})
    assert found.privacy is None and found.ledger == []
    with refused("header cannot be read", "privacy.epsilon"):
        wrong = header | {"privacy": header["privacy"] | {"epsilon": "none"}}
        provenance.of_header(path, {provenance.HEADER: json.dumps(wrong)})
