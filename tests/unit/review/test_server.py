"""Who gets an answer from the page's server: the page itself, from this machine, by its address."""

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pictures
import pytest
from reviewing import act, ask, threaded

from orchard.images.images import sha256
from review import server
from review.items import Item
from review.session import Session

EVIL = "<script>alert(1)</script>"


def item(number, data=None):
    data = pictures.encoded(pictures.noise(number)) if data is None else data
    return Item(
        name=f"{number}.png", sha256=sha256(data), label="apple", split="", read=lambda: data, prompt=EVIL
    )


@pytest.fixture
def session(tmp_path):
    return Session(tmp_path / "review.jsonl", "ann", [item(n) for n in range(4)], [item(4)])


@pytest.fixture
def address(session):
    with threaded(session) as found:
        yield found


def test_the_page_and_its_parts_are_served(address):
    for path, kind in (("", "text/html"), ("review.css", "text/css"), ("review.js", "text/javascript")):
        status, headers, body = ask(address, path)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8") and body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
    status, headers, body = ask(address, "thumbnail/4")
    assert (status, headers["Content-Type"], body[:4]) == (200, "image/webp", b"RIFF")


def test_only_this_machine_is_listened_to(session):
    with server.Server(session) as opened:
        assert opened.server_address[0] == "127.0.0.1"
    # Another address of this machine, as another one would use.
    with threaded(session) as address, pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", urlsplit(address).port), timeout=2)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", None, "localhost.evil:{port}"]
)
def test_another_host_s_name_is_refused_so_that_rebinding_reads_nothing(address, host):
    host = host and host.format(port=urlsplit(address).port)
    status, _, body = ask(address, "items", Host=host)
    assert status == 421 and b"apple" not in body


def test_localhost_is_this_machine_too(address):
    assert ask(address, "items", Host=f"localhost:{urlsplit(address).port}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/items", "/wrong/items", "//items", "/%2e%2e/items", "/é/"])
def test_without_the_secret_there_is_nothing(address, path):
    assert ask(address, path)[0] == 403
    secret = urlsplit(address).path.strip("/")
    assert ask(address, f"/{secret[:-1]}/items")[0] == 403
    assert ask(address, f"/{secret}")[0] == 403
    assert len(secret) >= 32


@pytest.mark.parametrize(
    "path",
    [
        "../review.jsonl",
        "../../etc/passwd",
        "%2e%2e/server.py",
        "page/../server.py",
        "thumbnail/../../server.py",
        "thumbnail/5",
        "thumbnail/-1",
        "thumbnail/٣",
        "picture/1e0",
        "picture/",
        "beside/4",
        "thumbnail/99999999999999999999",
        "review.js/",
        "server.py",
    ],
)
def test_no_path_leads_to_another_file(address, path):
    status, _, body = ask(address, path)
    assert status == 404 and len(body) < 40


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Length": "99999999"}, 413),
        ({"Content_Length": "-1"}, 413),
        ({"Content_Length": "x"}, 413),
    ],
)
def test_nothing_is_saved_for_another_page(address, session, headers, wanted):
    assert act(address, "reject", 0, **headers)[0] == wanted
    assert not session.path.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        {"verb": "reject", "images": [4], "note": ""},
        {"verb": "reject", "images": [-1], "note": ""},
        {"verb": "reject", "images": [True], "note": ""},
        {"verb": "reject", "images": ["0"], "note": ""},
        {"verb": "reject", "images": [], "note": ""},
        {"verb": "undo", "images": [0], "note": ""},
        {"verb": "shown", "images": [0], "note": ""},
        {"verb": "note", "images": [0], "note": "x" * 2001},
        b'{"verb": "note", "images": [0], "note": "\\ud800"}',
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_and_not_saved(address, session, body):
    headers = {"Origin": address.rsplit("/", 2)[0], "Content_Type": "application/json"}
    status, _, answer = ask(address, "act", method="POST", body=body, **headers)
    assert status == 400 and b"Traceback" not in answer
    assert not session.path.exists()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "CONNECT"])
def test_other_methods_do_nothing(address, method):
    assert ask(address, "items", method=method)[0] == 501


def test_decisions_are_on_disk_when_they_are_answered(address, session):
    status, answer = act(address, "reject", 1, 3)
    assert status == 200 and [one["number"] for one in answer["changed"]] == [1, 3]
    (line,) = map(json.loads, session.path.read_text().splitlines())
    assert (line["verb"], list(line["images"]), line["reviewer"]) == ("reject", ["1.png", "3.png"], "ann")
    act(address, "note", 1, note=EVIL)
    listed = json.loads(ask(address, "items")[2])["items"]
    assert [one["verdict"] for one in listed] == ["", "reject", "", "reject"] and listed[1]["note"] == EVIL
    act(address, "undo")
    _, answer = act(address, "undo")
    assert {one["number"]: one["verdict"] for one in answer["changed"]} == {1: "", 3: ""}
    assert act(address, "undo")[1] == {"changed": []}


def test_another_reviewer_s_decisions_are_there_on_the_next_load(address, session):
    other = Session(session.path, "bob", session.items)
    other.act({"verb": "keep", "images": [2], "note": ""})
    assert json.loads(ask(address, "items")[2])["items"][2]["by"] == "bob"


def test_one_reviewer_s_two_pages_take_back_what_was_last_in_either(session):
    again = Session(session.path, "ann", session.items)
    again.act({"verb": "keep", "images": [0], "note": ""})
    session.act({"verb": "reject", "images": [1], "note": ""})
    (changed,) = again.act({"verb": "undo", "images": [], "note": ""})["changed"]
    assert (changed["number"], changed["verdict"]) == (1, "")
    reread = Session(session.path, "ann", session.items).decided()
    assert {number: one.verdict for number, one in reread.items()} == {0: "keep"}
    assert {number: one.verdict for number, one in again.decided().items()} == {0: "keep"}


def test_a_full_disk_is_said_and_nothing_changes(address, session):
    session.path.mkdir()
    status, answer = act(address, "reject", 0)
    assert status == 500 and "cannot be written" in answer
    session.path.rmdir()
    assert json.loads(ask(address, "items")[2])["items"][0]["verdict"] == ""


def test_bytes_of_a_file_never_reach_the_browser(tmp_path):
    """A file that is a page as well as an image comes as pixels; one that is none, as an error."""
    polyglot = pictures.encoded(pictures.noise(1)) + EVIL.encode()
    session = Session(tmp_path / "r", "ann", [item(0, polyglot), item(1, EVIL.encode())])
    with threaded(session) as address:
        for path in ("thumbnail/0", "picture/0"):
            status, headers, body = ask(address, path)
            assert (status, headers["Content-Type"]) == (200, "image/webp") and b"script" not in body
        status, headers, body = ask(address, "picture/1")
        assert status == 500 and headers["Content-Type"].startswith("text/plain") and b"script" not in body


def test_a_taken_port_is_refused(session, refused):
    with server.Server(session) as opened, refused(f"--port {opened.server_port}", "give another"):
        server.Server(session, opened.server_port)


def test_the_page_asks_for_nothing_from_elsewhere():
    for path in Path(server.PAGE).iterdir():
        text = path.read_text()
        assert "http:" not in text and "https:" not in text and "//cdn" not in text
