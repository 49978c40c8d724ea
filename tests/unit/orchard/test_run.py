import json
import subprocess

import pytest
import torch

import orchard
from orchard import devices, software
from orchard.files import atomic


def test_file_appears_under_its_name_when_whole(tmp_path):
    target = tmp_path / "deep" / "a.bin"
    with atomic.whole_file(target) as aside:
        aside.write_bytes(b"half")
        assert not target.exists()
        aside.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic.whole_file(tmp_path / "a.bin") as aside:
        aside.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    atomic.write_json(target, {"loss": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(target, {"loss": float("nan")})
    assert json.loads(target.read_text()) == {"loss": 1}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"x": -float("inf")}]])
def test_json_refuses_numbers_that_json_does_not_have(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


def test_json_survives_any_class_name(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"りんご": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"りんご": None}


def test_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    atomic.writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["", "sub"])
def test_output_on_or_under_a_file_is_refused(tmp_path, refused, below):
    (tmp_path / "file").touch()
    with refused(f"--output {tmp_path / 'file' / below}: cannot be written", "choose another folder"):
        atomic.writable(tmp_path / "file" / below)


def test_file_hash_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert (
        atomic.file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def git(folder, *arguments):
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that tracks a package of our name, standing in for the checkout."""
    software.commit.cache_clear()
    package = tmp_path / "orchard" / "__init__.py"
    package.parent.mkdir()
    package.touch()
    monkeypatch.setattr(orchard, "__file__", str(package))
    git(tmp_path, "init")
    yield tmp_path
    software.commit.cache_clear()


def test_commit_is_the_one_checked_out_with_a_mark_for_changes(checkout):
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "x")
    commit = git(checkout, "rev-parse", "HEAD")
    assert software.commit() == commit
    (checkout / "orchard" / "__init__.py").write_text("changed")
    assert software.commit() == commit  # the code that runs was imported before
    software.commit.cache_clear()
    assert software.commit() == f"{commit}+"


def test_commit_of_a_repository_that_does_not_track_us_is_not_ours(checkout):
    (checkout / "own").touch()
    git(checkout, "add", "own")
    git(checkout, "commit", "-m", "x")
    assert software.commit() is None


def test_versions_name_this_toolkit_and_torch():
    found = software.versions()
    assert found["orchard"] == orchard.__version__
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__


def test_precision_on_a_cpu(monkeypatch, refused):
    cpu = torch.device("cpu")
    assert devices.torch_dtype("fp32", cpu) is torch.float32
    with refused("--precision fp16: only on a GPU", "fp32"):
        devices.torch_dtype("fp16", cpu)
    monkeypatch.setattr(devices, "_cpu_bf16", lambda: False)
    assert devices.torch_dtype("auto", cpu) is torch.float32
    with refused("--precision bf16: cpu has no bfloat16; use fp32"):
        devices.torch_dtype("bf16", cpu)
    monkeypatch.setattr(devices, "_cpu_bf16", lambda: True)
    assert devices.torch_dtype("auto", cpu) is devices.torch_dtype("bf16", cpu) is torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "bf16", "auto", "offered"),
    [
        ((9, 0), True, torch.bfloat16, ""),
        ((8, 6), True, torch.bfloat16, ""),
        ((7, 5), False, torch.float16, "use fp16 or fp32"),
        ((7, 0), False, torch.float16, "use fp16 or fp32"),
        ((6, 1), False, torch.float32, "use fp16 or fp32"),
    ],
)
def test_precision_on_cards_of_every_age(monkeypatch, refused, capability, bf16, auto, offered):
    card = torch.device("cuda")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: capability)
    # Every card emulates it, which does not count.
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation or bf16
    )
    assert devices.torch_dtype("auto", card) is auto
    assert devices.torch_dtype("fp16", card) is torch.float16
    if offered:
        with refused("--precision bf16: cuda has no bfloat16", offered):
            devices.torch_dtype("bf16", card)
    else:
        assert devices.torch_dtype("bf16", card) is torch.bfloat16


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize(
    ("kind", "asked"), [("xpu", "torch.xpu.is_bf16_supported"), ("mps", "accelerate.utils.is_bf16_available")]
)
def test_bfloat16_of_an_accelerator_is_its_own_not_the_processors(monkeypatch, kind, asked, able):
    monkeypatch.setattr(devices, "_cpu_bf16", lambda: not able)
    monkeypatch.setattr(asked, lambda **_: able)
    assert devices.precisions(torch.device(kind)) == (("fp32", "bf16", "fp16") if able else ("fp32", "fp16"))
    assert devices.torch_dtype("auto", torch.device(kind)) is (torch.bfloat16 if able else torch.float32)


def test_two_classes_with_one_file_name_are_refused(refused):
    atomic.require_distinct_files(["red apple", "green apple"])
    with refused("'red apple'", "'red_apple'", "rename one"):
        atomic.require_distinct_files(["red apple", "red_apple"])
    with refused("rename one"):
        atomic.require_distinct_files(["A", "a"])
