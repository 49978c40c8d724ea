"""What audits found, in the cards of what they attacked."""

from orchard import audits

SAID = {"1": ["apple.safetensors, loss: AUC 0.9", "a <b> set"]}
CARD = f"# Set\r\n\n## Audit\nby hand\n{audits.START}\n{audits.END}\n## Licence\n"


def test_a_card_has_what_was_found_between_its_marks_and_keeps_all_else(tmp_path):
    card = tmp_path / audits.CARD
    card.write_bytes(CARD.encode() + b"\xe9")
    for said in ({"1": ["before"]}, SAID):
        audits.write(tmp_path, said, {"1"})
    text = card.read_bytes()
    before, _, after = CARD.partition(f"{audits.START}\n{audits.END}")
    assert text.startswith(before.encode()) and text.endswith(after.encode() + b"\xe9")
    assert b"- apple.safetensors, loss: AUC 0.9\n" in text and b"before" not in text
    assert b"&#60;b&#62;" in text
    audits.write(tmp_path, SAID, {"2"})
    assert card.read_bytes() == CARD.encode() + b"\xe9"


def test_a_card_of_somebody_else_and_a_folder_without_one_stay_as_they_are(tmp_path):
    audits.write(tmp_path, SAID, {"1"})
    assert [path.name for path in tmp_path.iterdir()] == [audits.FILE]
    card = tmp_path / audits.CARD
    card.write_text("# Mine\n\n## Audit\nby hand\n", encoding="utf-8")
    audits.write(tmp_path, SAID, {"1"})
    assert card.read_text(encoding="utf-8") == "# Mine\n\n## Audit\nby hand\n"


def test_only_what_lies_there_is_quoted_and_other_audits_stay_known(tmp_path, refused):
    assert audits.found(tmp_path, {"1"}) == []
    audits.write(tmp_path, SAID, {"1"})
    audits.write(tmp_path, {"2": ["other"]}, {"1", "2"})
    assert audits.found(tmp_path, {"1", "3"}) == SAID["1"]
    assert audits.found(tmp_path, {"1", "2"}) == [*SAID["1"], "other"]
    assert audits.found(tmp_path, {"3"}) == []
    assert audits.section(tmp_path, {"3"}) == [audits.START, audits.END]
    (tmp_path / audits.FILE).write_text("[]", encoding="utf-8")
    with refused(audits.FILE, "remove it"):
        audits.found(tmp_path, {"1"})


def test_a_set_is_known_by_its_files_in_any_order_and_by_its_adapters():
    files = [{"name": "x", "sha256": "1", "rows": 2}, {"name": "y", "sha256": "2", "rows": 2}]
    assert audits.digest(files) == audits.digest(files[::-1]) != audits.digest(files[:1])
    manifest = {"files": files, "arguments": {"a": {"lora": "8+9"}, "b": {"lora": ""}, "c": {}}}
    assert audits.of_set(manifest) == {audits.digest(files), "8", "9"}
