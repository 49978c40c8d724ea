"""Processes that write one file take turns."""

import threading

from orchard.run import whole_file


def test_the_second_writer_of_a_file_waits_for_the_first(tmp_path):
    path, order = tmp_path / "entry", []

    def second():
        with whole_file(path, shared=True) as aside:
            order.append(path.read_text())
            aside.write_text("second")

    with whole_file(path, shared=True) as aside:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and order == []
        aside.write_text("first")
    thread.join(30)
    assert order == ["first"] and path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / "entry.part").write_text("half of something longer")
    with whole_file(tmp_path / "entry", shared=True) as aside:
        aside.write_text("whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
