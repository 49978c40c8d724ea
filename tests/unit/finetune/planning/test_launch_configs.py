"""Several processes and machines: what launch configs ask for, and a divided network."""

import re
from types import SimpleNamespace

import numpy as np
import pipelines
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from conftest import ROOT
from safetensors.torch import load_file
from shell import TWO, command

from finetune.config import TrainLora
from finetune.planning import accelerators
from finetune.training import sharded

CONFIGS = ROOT / "accelerate_configs"
WORDS = ("finetune/train_lora.py", "--steps", "3")


def launched(name: str, *more: str) -> SimpleNamespace:
    """What ``accelerate launch --config_file`` makes of a config file."""
    options = ["--config_file", str(CONFIGS / f"{name}.yaml"), *more, *WORDS]
    return _validate_launch_command(launch_command_parser().parse_args(options))[0]


@pytest.mark.parametrize(
    ("name", "processes", "machines", "precision"),
    [
        ("cpu", 1, 1, "no"),
        ("gpu", 1, 1, "bf16"),
        ("multi_gpu", 2, 1, "bf16"),
        ("multi_node", 4, 2, "bf16"),
        ("deepspeed_zero2", 2, 1, "bf16"),
        ("fsdp", 2, 1, "bf16"),
    ],
)
def test_a_launch_config_asks_for_these_processes(name, processes, machines, precision):
    found = launched(name)
    assert (found.num_processes, found.num_machines) == (processes, machines)
    assert found.mixed_precision == precision
    assert bool(found.cpu or found.use_cpu) is (name == "cpu")
    assert found.multi_gpu is (name in ("multi_gpu", "multi_node"))
    assert (found.use_deepspeed, found.use_fsdp) == (name == "deepspeed_zero2", name == "fsdp")
    head = (CONFIGS / f"{name}.yaml").read_text()
    assert re.search(rf"accelerate launch --config_file accelerate_configs/{name}\.yaml", head)


def test_every_launch_config_is_tested():
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names == {"cpu", "gpu", "multi_gpu", "multi_node", "deepspeed_zero2", "fsdp"}


def test_a_machine_of_several_is_told_its_rank_and_where_the_first_one_is():
    found = launched("multi_node", "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    assert (found.machine_rank, found.main_process_ip, found.main_process_port) == (1, "10.0.0.1", 29500)


def test_the_fsdp_config_divides_weights_and_reshards_them(monkeypatch):
    for key, value in prepare_multi_gpu_env(launched("fsdp")).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap is None and not plugin.cpu_ram_efficient_loading


def test_the_deepspeed_config_divides_optimiser_and_gradients():
    found = launched("deepspeed_zero2")
    assert (found.zero_stage, found.gradient_clipping) == (2, 1.0)
    assert found.gradient_accumulation_steps == "auto"
    assert (found.offload_optimizer_device, found.offload_param_device) == ("none", "none")
    assert not found.zero3_init_flag


def fake(plugin: DistributedType, **state) -> SimpleNamespace:
    return SimpleNamespace(distributed_type=plugin, num_processes=2, state=SimpleNamespace(**state))


def test_deepspeed_is_told_our_batch_sizes_and_refuses_checkpoints(refused):
    plugin = SimpleNamespace(deepspeed_config={"gradient_accumulation_steps": "auto"})
    config = TrainLora(batch_size=8, accumulation=4, save_every=0)
    accelerators.configure_deepspeed(config, fake(DistributedType.DEEPSPEED, deepspeed_plugin=plugin))
    assert plugin.deepspeed_config == {"gradient_accumulation_steps": 4, "train_micro_batch_size_per_gpu": 4}
    with refused("--save_every 500", "DeepSpeed", "--save_every 0"):
        accelerators.configure_deepspeed(
            TrainLora(), fake(DistributedType.DEEPSPEED, deepspeed_plugin=plugin)
        )
    with refused("--ema_decay 0.9", "DeepSpeed"):
        accelerators.configure_deepspeed(
            TrainLora(save_every=0, ema_decay=0.9), fake(DistributedType.DEEPSPEED, deepspeed_plugin=plugin)
        )


def test_a_plugin_that_keeps_the_base_trains_one_adapter_a_run(refused):
    with refused("FSDP", "one adapter per run, not 3", "--joint"):
        accelerators.require_jobs(fake(DistributedType.FSDP), 3)
    accelerators.require_jobs(fake(DistributedType.FSDP), 1)
    accelerators.require_jobs(fake(DistributedType.MULTI_GPU), 3)


def test_without_shards_gathering_and_scattering_change_nothing():
    value = {"a": [torch.arange(3)], "b": "x"}
    assert sharded.gathered(value) == value
    assert torch.equal(sharded.scattered(torch.arange(3), torch.zeros(3)), torch.arange(3))


@pytest.mark.slow
def test_a_network_divided_among_two_processes_learns_and_resumes_as_one_that_is_not(tmp_path):
    base = pipelines.tiny(tmp_path / "base")
    script = ROOT / "tests" / "helpers" / "divided.py"
    for name, launcher in (("one", TWO[:1]), ("two", TWO)):
        (tmp_path / name).mkdir()
        command(ROOT, *launcher, script, base, tmp_path / name)
    alone, divided, resumed = (
        load_file(tmp_path / f"{name}.safetensors") for name in ("one/whole", "two/whole", "two/resumed")
    )
    for key, value in alone.items():
        np.testing.assert_allclose(divided[key], value, atol=2e-5, err_msg=key)
    assert all(torch.equal(resumed[key], value) for key, value in divided.items())
