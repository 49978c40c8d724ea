"""The learner: moving average, accumulation, gradient checkpointing, and looks that change nothing."""

from pathlib import Path

import pipelines
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from encoded_photos import cache
from scalers import Overflowing

from finetune.config import TrainLora
from finetune.models import cpu_layers, lora
from finetune.models.families import family_of
from finetune.planning import accelerators
from finetune.planning.accelerators import arithmetic_of
from finetune.step.batches import TrainingData
from finetune.training import learner
from finetune.training.loop import train_steps
from orchard import devices
from orchard.bases import bases

CPU = torch.device("cpu")
NAMES = list("abcdef")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


def run(folder: Path, look=None, compiler="no", **options) -> tuple[list[torch.Tensor], list[float]]:
    """Final weights and losses of a short run; ``look(learner, family)`` is called after every step."""
    base = bases.resolve(str(folder))
    family = family_of(bases.load(base, torch.float32, CPU), base)
    config = TrainLora(**{"steps": 5, "batch_size": 4, "accumulation": 1, "learning_rate": 1e-2, **options})
    AcceleratorState._reset_state(reset_partial_state=True)  # else a second run has the first one's compiler
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulation),
        dynamo_backend=compiler,
    )
    parameters = lora.inject(family.denoiser, 2, 2, seed=0)
    trained = learner.prepare(family, parameters, config, accelerator)
    data, losses = TrainingData(photos=cache(), files=NAMES), []
    for step in train_steps(family, data, trained, config, accelerator):
        losses.append(step.loss)
        if look is not None:
            look(trained, family)
    with trained.for_inference():
        return [parameter.detach().clone() for parameter in trained.parameters], losses


def test_batch_two_times_accumulation_four_is_batch_eight(folder):
    whole, expected = run(folder, batch_size=8)
    parts, losses = run(folder, batch_size=2, accumulation=4)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, parts, strict=True))
    other, _ = run(folder, batch_size=2)
    assert not all(torch.allclose(a, b, atol=1e-3) for a, b in zip(whole, other, strict=True))


def test_gradient_checkpointing_gives_the_same_adapter_to_the_bit(folder):
    plain, _ = run(folder)
    saved, _ = run(folder, gradient_checkpointing=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, saved, strict=True))


def test_a_launcher_that_compiles_gives_the_same_adapter_to_float_noise(folder):
    kinds = []

    def look(trained, family):
        kinds.append((type(trained.network).__name__, type(family.denoiser).__name__))

    plain, _ = run(folder, steps=2)
    compiled, _ = run(folder, look, steps=2, compiler="eager")
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(plain, compiled, strict=True))
    assert set(kinds) == {("OptimizedModule", "UNet2DConditionModel")}


def test_the_option_compiles_as_the_launcher_does(monkeypatch, tmp_path, refused):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(devices, "require_compiler", lambda: None)
    for wanted, compiler in ((True, {"compiler": "inductor"}), (False, {})):
        config = TrainLora(compile=wanted, precision="fp32", output=tmp_path)
        accelerator, dtype = accelerators.accelerator_for(config)
        assert arithmetic_of(accelerator, dtype) == {"precision": "fp32", **compiler}
        AcceleratorState._reset_state()
    monkeypatch.undo()
    monkeypatch.setattr(torch, "compile", None)
    with refused("--compile", "cannot compile on this machine"):
        accelerators.accelerator_for(TrainLora(compile=True, output=tmp_path))


@pytest.mark.parametrize(("name", "compiler"), [("no", {}), ("aot_eager", {"compiler": "aot_eager"})])
def test_what_compiles_is_part_of_what_an_adapter_depends_on(name, compiler):
    accelerator = Accelerator(cpu=True, dynamo_backend=name)
    assert arithmetic_of(accelerator, torch.float32) == {"precision": "fp32", **compiler}


def test_the_moving_average_is_what_remains(folder):
    seen: list[list[torch.Tensor]] = []

    def note(trained, family) -> None:
        seen.append([parameter.detach().clone() for parameter in trained.parameters])

    final, _ = run(folder, look=note, ema_decay=0.3)
    # The decay rises to its limit as (1 + k) / (10 + k), from 0 at the first step.
    expected = seen[0]
    for count, weights in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + count) / (10 + count))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(final, expected, strict=True))
    assert not all(torch.allclose(a, b) for a, b in zip(final, seen[-1], strict=True))


def test_a_step_that_the_loss_scaler_skips_is_no_step_for_the_average(folder, monkeypatch):
    seen: list[list[torch.Tensor]] = []
    scaler = Overflowing(1, 2, 4)
    prepare = learner.prepare

    def scaled(family, parameters, config, accelerator):
        accelerator.scaler = scaler
        return prepare(family, parameters, config, accelerator)

    def note(trained, family) -> None:
        seen.append([parameter.detach().clone() for parameter in trained.parameters])

    monkeypatch.setattr(learner, "prepare", scaled)
    final, _ = run(folder, look=note, steps=6, ema_decay=0.3)
    assert scaler.count == 6
    assert all(torch.equal(a, b) for a, b in zip(seen[2], seen[3], strict=True))
    taken = [seen[2], seen[4], seen[5]]
    expected = taken[0]
    for count, weights in enumerate(taken[1:], start=1):
        decay = min(0.3, (1 + count) / (10 + count))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(final, expected, strict=True))


@pytest.mark.parametrize("options", [{"ema_decay": 0.5}, {"optimizer": "schedulefree"}, {}], ids=str)
def test_a_look_at_the_weights_in_use_changes_no_bit_of_training(folder, options):
    def look(trained, family) -> None:
        with trained.for_inference():
            assert not family.denoiser.training and not torch.is_grad_enabled()
            torch.rand(3)
        assert family.denoiser.training

    torch.manual_seed(3)
    plain, losses = run(folder, **options)
    number = torch.rand(1)
    torch.manual_seed(3)
    watched, same = run(folder, look=look, **options)
    assert torch.equal(torch.rand(1), number)
    assert losses == same
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


def test_inside_a_look_the_average_is_in_the_network(folder):
    def look(trained, family) -> None:
        before = [parameter.detach().clone() for parameter in trained.parameters]
        with trained.for_inference():
            pairs = zip(trained.parameters, trained.average.shadow_params, strict=True)
            assert all(torch.equal(parameter, average) for parameter, average in pairs)
        assert all(torch.equal(a, b) for a, b in zip(before, trained.parameters, strict=True))

    run(folder, look=look, ema_decay=0.9)


def test_attention_on_a_cpu_is_the_same_function_by_other_products(folder):
    base = bases.resolve(str(folder))
    unet = family_of(bases.load(base, torch.float32, CPU), base).denoiser
    states = torch.randn(2, 77, unet.config.cross_attention_dim)
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), states
    with torch.no_grad():
        fused = unet(*inputs).sample
        cpu_layers.optimize_for_cpu(unet, torch.device("cuda"))
        assert {type(one).__name__ for one in unet.attn_processors.values()} == {"AttnProcessor2_0"}
        cpu_layers.optimize_for_cpu(unet, CPU)
        plain = unet(*inputs).sample
        assert not torch.equal(plain, fused)
        torch.testing.assert_close(plain, fused)


def test_long_sequences_keep_the_fused_kernel(monkeypatch):
    monkeypatch.setattr(cpu_layers, "LONGEST", 3)
    short = cpu_layers.ShortSequenceProcessor()
    monkeypatch.setattr(short, "plain", lambda attn, states: "plain")
    monkeypatch.setattr(short, "fused", lambda attn, states: "fused")
    assert [short(None, torch.zeros(1, n, 2)) for n in (3, 4)] == ["plain", "fused"]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kernel_size": (3, 1), "dilation": 2, "padding": (2, 0)}]
)
def test_a_heavy_convolution_of_a_small_map_is_the_same_function(monkeypatch, stride, options):
    monkeypatch.setattr(cpu_layers, "HEAVY", 1)
    layer = torch.nn.Conv2d(6, 4, **{"kernel_size": 3, "padding": 1, "stride": stride} | options)
    image = torch.randn(2, 6, 8, 5, requires_grad=True)
    expected = layer(image)
    weights = torch.randn_like(expected)
    gradient = torch.autograd.grad(expected, image, weights)
    cpu_layers.optimize_for_cpu(layer, CPU)
    assert type(layer) is cpu_layers.SmallMapConv2d
    torch.testing.assert_close(layer(image), expected)
    torch.testing.assert_close(torch.autograd.grad(layer(image), image, weights), gradient)


def test_convolutions_that_gain_nothing_are_left_alone(monkeypatch):
    light = torch.nn.Conv2d(8, 8, 3, padding=1)
    cpu_layers.optimize_for_cpu(light, CPU)
    monkeypatch.setattr(cpu_layers, "HEAVY", 1)
    pointwise, grouped = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(8, 8, 3, groups=2)
    mirrored = torch.nn.Conv2d(8, 8, 3, padding_mode="reflect")
    others = [pointwise, grouped, mirrored]
    for layer in others:
        cpu_layers.optimize_for_cpu(layer, CPU)
    elsewhere = torch.nn.Conv2d(8, 8, 3, padding=1)
    cpu_layers.optimize_for_cpu(elsewhere, torch.device("cuda"))
    assert {type(layer) for layer in [light, *others, elsewhere]} == {torch.nn.Conv2d}


def test_large_maps_keep_the_convolution(monkeypatch):
    layer = torch.nn.Conv2d(3, 2, 3, padding=1)
    layer.__class__ = cpu_layers.SmallMapConv2d
    monkeypatch.setattr(cpu_layers.F, "unfold", lambda *_: pytest.fail("unfolded"))
    assert layer(torch.zeros(2, 3, 9, 8)).shape == (2, 2, 9, 8)


def test_a_padding_by_name_keeps_the_convolution():
    layer = torch.nn.Conv2d(3, 2, 3, padding="same")
    image = torch.randn(1, 3, 4, 4)
    expected = layer(image)
    layer.__class__ = cpu_layers.SmallMapConv2d
    assert torch.equal(layer(image), expected)
