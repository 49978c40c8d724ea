"""`make gpu`, as far as a CPU can go: what is compared, and what is told of what fails."""

import pytest

import gpu_check


@pytest.fixture
def only(monkeypatch, tmp_path):
    """Run the script with these checks of training and sampling; its exit code and table."""

    def run(training, sampling):
        monkeypatch.setattr(gpu_check, "TRAINING", training)
        monkeypatch.setattr(gpu_check, "SAMPLING", sampling)
        monkeypatch.setattr(
            "sys.argv", ["gpu_check.py", "--bases", "mini", "--output", str(tmp_path / "out")]
        )
        with pytest.raises(SystemExit) as stop:
            gpu_check.main()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["table.md"]
        return stop.value.code, (tmp_path / "out" / "table.md").read_text()

    return run


@pytest.mark.slow
def test_what_a_cpu_can_do_is_compared_with_float32_and_the_rest_skipped(only):
    check = gpu_check.Check
    code, table = only(
        (check("--precision fp32", 1e-9, gpu=False), check("--precision fp16", 1.0)),
        (check("--precision bf16", 6.0, gpu=False),),
    )
    assert code == 0
    assert "| mini | train --precision fp32 | 0% |" in table and "| skipped: no GPU |" in table
    assert "| mini | generate --precision bf16 | 0." in table and " levels | " in table


@pytest.mark.slow
def test_what_fails_and_what_is_too_far_off_is_told_and_ends_with_1(only):
    check = gpu_check.Check
    code, table = only(
        (check("--rank 0", 1.0, gpu=False), check("--precision bf16", 1e-9, gpu=False)),
        (),
    )
    assert code == 1
    assert "failed: error: --rank 0" in table and "too far off: at most" in table
