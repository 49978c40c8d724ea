"""What an audit found, in the cards of what it attacked."""

from orchard import audits

SAID = ["apple.safetensors, loss: AUC 0.9", "a <b> set"]


def test_a_card_has_what_was_found_once_at_its_end(tmp_path):
    card = tmp_path / audits.CARD
    card.write_text("# Set\n\nWords.\n", encoding="utf-8")
    for said in (["before"], SAID):
        audits.write(tmp_path, {"a": "1"}, said)
    text = card.read_text(encoding="utf-8")
    assert text.startswith("# Set\n\nWords.\n\n## Audit\n") and text.count(audits.HEADING) == 1
    assert "- apple.safetensors, loss: AUC 0.9\n" in text and "before" not in text
    assert "&#60;b&#62;" in text
    assert text.endswith("\n".join(["", *audits.section(tmp_path, {"a": "1"})]))


def test_a_folder_without_a_card_gets_none(tmp_path):
    audits.write(tmp_path, {"a": "1"}, SAID)
    assert [path.name for path in tmp_path.iterdir()] == [audits.FILE]


def test_only_an_audit_of_what_lies_there_is_quoted(tmp_path):
    assert audits.found(tmp_path, {"a": "1"}) == []
    audits.write(tmp_path, {"a": "1", audits.SHARDS: "2"}, SAID)
    assert audits.found(tmp_path, {"a": "1", "b": "3"}) == SAID
    assert audits.found(tmp_path, {audits.SHARDS: "2"}) == SAID
    assert audits.found(tmp_path, {"a": "other"}) == audits.found(tmp_path, {"b": "1"}) == []
    (tmp_path / audits.FILE).write_text("[]", encoding="utf-8")
    assert audits.found(tmp_path, {"a": "1"}) == audits.section(tmp_path, {"a": "1"}) == []


def test_a_set_is_known_by_its_files_in_any_order():
    files = [{"name": "x", "sha256": "1", "rows": 2}, {"name": "y", "sha256": "2", "rows": 2}]
    assert audits.digest(files) == audits.digest(files[::-1]) != audits.digest(files[:1])
