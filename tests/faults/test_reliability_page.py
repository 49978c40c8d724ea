"""The page on reliability says what the tests show."""

import page


def test_the_page_is_what_the_markers_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(), "run python tests/faults/page.py"
