"""Progress in a log: a line now and then, and at once for what takes a while."""

from orchard.cli.terminal import bar


def test_what_comes_next_is_told_at_once_and_steps_now_and_then(capsys):
    with bar("evaluating", 4, unit="steps") as advance:
        advance(1, "first")
        advance(0, "its own adapters")
        advance(3, "last")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("evaluating: 1/4 steps") and first.endswith("its own adapters")
    assert second.startswith("evaluating: 4/4 steps") and second.endswith("last")


def test_nothing_is_said_of_the_time_left_before_the_first_step(capsys):
    with bar("evaluating", 4, unit="steps") as advance:
        advance(0, "its own adapters")
    assert capsys.readouterr().out.splitlines() == ["evaluating: 0/4 steps its own adapters"]
