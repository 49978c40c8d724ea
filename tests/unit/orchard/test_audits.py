"""What audits found, in the cards of what they attacked."""

from orchard import audits


def finding(said, attack="loss", effort=16):
    return {"attack": attack, "effort": effort, "said": said}


FOUND = {"1": [finding("apple.safetensors, loss: AUC 0.9"), finding("a <b> set", "copies")]}
SAID = [one["said"] for one in FOUND["1"]]
CARD = f"# Set\r\n\n## Audit\nby hand\n{audits.START}\n{audits.END}\n## Licence\n"


def test_a_card_has_what_was_found_between_its_marks_and_keeps_all_else(tmp_path):
    card = tmp_path / audits.CARD
    card.write_bytes(CARD.encode() + b"\xe9")
    for found in ({"1": [finding("before")]}, FOUND):
        audits.write(tmp_path, found, {"1"})
    text = card.read_bytes()
    before, _, after = CARD.partition(f"{audits.START}\n{audits.END}")
    assert text.startswith(before.encode()) and text.endswith(after.encode() + b"\xe9")
    assert b"- apple.safetensors, loss: AUC 0.9\n" in text and b"before" not in text
    assert b"&#60;b&#62;" in text
    audits.write(tmp_path, FOUND, {"2"})
    assert card.read_bytes() == CARD.encode() + b"\xe9"


def test_a_card_of_somebody_else_and_a_folder_without_one_stay_as_they_are(tmp_path):
    audits.write(tmp_path, FOUND, {"1"})
    assert [path.name for path in tmp_path.iterdir()] == [audits.FILE]
    card = tmp_path / audits.CARD
    card.write_text("# Mine\n\n## Audit\nby hand\n", encoding="utf-8")
    audits.write(tmp_path, FOUND, {"1"})
    assert card.read_text(encoding="utf-8") == "# Mine\n\n## Audit\nby hand\n"


def test_only_what_lies_there_is_quoted_and_other_audits_stay_known(tmp_path, refused):
    assert audits.quoted(tmp_path, {"1"}) == []
    audits.write(tmp_path, FOUND, {"1"})
    audits.write(tmp_path, {"2": [finding("other")]}, {"1", "2"})
    assert audits.quoted(tmp_path, {"1", "3"}) == SAID
    assert audits.quoted(tmp_path, {"1", "2"}) == [*SAID, "other"]
    assert audits.quoted(tmp_path, {"3"}) == []
    assert audits.section(tmp_path, {"3"}) == [audits.START, audits.END]
    (tmp_path / audits.FILE).write_text("[]", encoding="utf-8")
    with refused(audits.FILE, "remove it"):
        audits.quoted(tmp_path, {"1"})


def test_a_set_is_known_by_its_files_in_any_order_and_by_its_adapters():
    files = [{"name": "x", "sha256": "1", "rows": 2}, {"name": "y", "sha256": "2", "rows": 2}]
    assert audits.digest(files) == audits.digest(files[::-1]) != audits.digest(files[:1])
    manifest = {"files": files, "arguments": {"a": {"lora": "8+9"}, "b": {"lora": ""}, "c": {}}}
    assert audits.of_set(manifest) == {audits.digest(files), "8", "9"}


def test_what_was_tried_harder_stays_and_what_was_tried_as_hard_takes_its_place(tmp_path):
    audits.write(tmp_path, FOUND, {"1"})
    assert audits.write(tmp_path, {"1": [finding("weak", effort=1)]}, {"1"}) == [SAID[0]]
    assert audits.quoted(tmp_path, {"1"}) == SAID
    assert audits.write(tmp_path, {"1": [finding("new")]}, {"1"}) == []
    assert audits.quoted(tmp_path, {"1"}) == ["new", SAID[1]]


def test_what_was_found_of_adapters_together_is_quoted_where_all_of_them_lie(tmp_path):
    audits.write(tmp_path, {audits.together(["2", "1"]): [finding("both")]}, {"1", "2"})
    assert audits.quoted(tmp_path, {"1", "2", "3"}) == ["both"]
    assert audits.quoted(tmp_path, {"1", "3"}) == []
