"""Every command under every fault of the table."""

import page
import pytest
from subjects import SUBJECTS
from table import COMMANDS, TABLE
from trials import FAULTS, Trials

CASES = [
    pytest.param(command, fault, moments, id=f"{command}-{fault}-{moments}", marks=marks)
    for number, command in enumerate(COMMANDS)
    for fault, cells in TABLE.items()
    for moments, marks in (
        (cells[number].moments - cells[number].slow, ()),
        (cells[number].slow, pytest.mark.slow),
    )
    if moments
]


@pytest.fixture(scope="module")
def trials(request, tmp_path_factory):
    """The command and what its undisturbed run left."""
    return Trials(SUBJECTS[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize(("trials", "fault", "moments"), CASES, indirect=["trials"])
def test_a_command_under_a_fault(trials, fault, moments):
    FAULTS[fault](trials, moments)


def test_the_page_is_what_the_table_says():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run python tests/faults/page.py"
