"""The page as a reviewer uses it, in headless Chromium: by keys, by finger, over a killed server.

Needs the package playwright (of the dev extra) and a Chromium on the PATH; nothing is downloaded.
"""

import re
import signal
from pathlib import Path

import pictures
import pytest
from playwright.sync_api import expect
from reviewing import served, synthetic, threaded

from orchard import decisions
from orchard.images.images import sha256
from review import command
from review.items import Finding, Item, of_shards
from review.session import Session

pytestmark = pytest.mark.needs("browser")
expect.set_options(timeout=30_000)
EVIL = "<img src=x onerror=alert(1)>"
MEASURES = {"contrast": "contrast"}


@pytest.fixture
def opened(browser):
    """Open an address; every message of the page, and every request to elsewhere, is kept."""
    contexts = []

    def open_page(address, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("dialog", lambda dialog: page.problems.append(dialog.message))
        page.on(
            "request",
            lambda request: request.url.startswith(address) or page.problems.append(request.url),
        )
        page.goto(address)
        page.locator(".tile").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The items of a set of 5,000 images."""
    counts = {"apple": 2000, "banana": 1500, "orange": 1500}
    return of_shards(synthetic(tmp_path_factory.mktemp("many") / "shards", counts))


def real(number, label="apple", **more):
    data = pictures.encoded(pictures.noise(number, (40, 30)))
    return Item(
        name=f"train/{label}/{number}.png",
        sha256=sha256(data),
        label=label,
        split="train",
        read=lambda: data,
        **more,
    )


@pytest.fixture
def session(tmp_path, many):
    """Thirty images of three classes beside four photos of one."""
    few = [*many[:10], *many[2000:2010], *many[3500:3510]]
    beside = [real(n) for n in range(4)]
    facts = {"title": "few", "kind": "synthetic", "measures": MEASURES, "findings": {}}
    return Session(
        tmp_path / decisions.FILE,
        "ann",
        few,
        beside,
        nearest=lambda item: [(31, "nearest")] if item.label == "apple" else [],
        facts=facts,
    )


def said(session):
    """The verdicts in the file, by number."""
    again = Session(session.path, "ann", session.items)
    return {number: one.verdict for number, one in again.decided().items() if one.verdict}


def progress(page, *words):
    for word in words:
        expect(page.locator("#progress")).to_contain_text(word)


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_a_set_is_gone_through_by_keys_alone(opened, session):
    with threaded(session) as address:
        page = opened(address)
        press(page, "k", "r", "ArrowRight", "r")
        progress(page, "1 kept, 2 rejected")
        press(page, "z", "z")
        progress(page, "1 of 30 decided: 1 kept, 0 rejected")
        press(page, "Home", "ArrowDown", "x")  # of the class below, whose first tile stands under it
        progress(page, "1 rejected")
        press(page, "ArrowLeft", "u", "Home", "Space", "Shift+ArrowRight", "Shift+ArrowRight", "r")
        progress(page, "3 rejected")
        press(page, "End", "k")
        progress(page, "1 kept, 3 rejected")
        first = {n: verdict for n, verdict in said(session).items() if n < 3}
        assert first == {0: "reject", 1: "reject", 2: "reject"} and said(session)[29] == "keep"
        press(page, "a", "k")
        progress(page, "30 kept, 0 rejected")
        press(page, "Control+z")
        progress(page, "1 kept, 3 rejected")
        assert page.problems == []


def test_an_image_in_large_has_its_prompt_score_note_and_nearest_photo(opened, session):
    with threaded(session) as address:
        page = opened(address)
        press(page, "ArrowRight", "Enter")
        expect(page.locator("#large")).to_contain_text("a photo of apple, on grass")
        expect(page.locator("#others")).to_contain_text("train/apple/1.png: nearest")
        press(page, "k")  # and on to the next, in large
        expect(page.locator("#name")).to_have_text("apple-000002.png")
        press(page, "n")
        page.keyboard.type("kr too dark")
        press(page, "Escape", "r", "Escape")
        progress(page, "1 kept, 1 rejected")
        expect(page.locator("#large")).to_be_hidden()
        found = Session(session.path, "ann", session.items).decided()
        assert found[2].note == "kr too dark" and found[2].verdict == "reject"
        assert page.problems == []


def test_filters_leave_class_context_prompt_score_and_what_was_decided(opened, session):
    with threaded(session) as address:
        page = opened(address)

        def left(number):
            expect(page.locator("#matching")).to_have_text(f"{number} of 30")
            expect(page.locator(".tile")).to_have_count(number)

        page.locator("[name=label]").select_option("banana")
        left(10)
        page.locator("[name=context]").select_option("on grass")
        left(5)
        page.locator("[name=measure]").select_option("contrast")
        page.locator("[name=least]").fill("4")
        left(3)
        page.locator("[name=order]").select_option("down")
        assert page.locator(".tile img").first.get_attribute("src") == "thumbnail/19"
        page.locator(".tile").first.click()
        press(page, "r")
        progress(page, "1 rejected")
        left(3)  # what is decided stays in view until the filters are set anew
        page.locator("[name=verdict]").select_option("undecided")
        left(2)
        page.locator("[name=text]").fill("orange")
        expect(page.locator("main")).to_contain_text("No image matches")
        assert page.problems == []


def test_a_pointer_does_all_of_it_too(opened, session):
    with threaded(session) as address:
        page = opened(address, width=400)
        tiles = page.locator(".tile")
        tiles.nth(3).click()
        tiles.nth(5).click(modifiers=["Control"])
        tiles.nth(7).hover()
        tiles.nth(7).locator(".mark").click()
        progress(page, "2 selected")
        page.locator("nav").get_by_text("Reject").click()
        progress(page, "2 rejected")
        page.locator("nav").get_by_text("Undo").click()
        progress(page, "0 rejected")
        tiles.nth(3).dblclick()
        page.locator("#large").get_by_text("Keep").click()
        progress(page, "1 kept")
        assert said(session) == {3: "keep"} and page.problems == []


def test_findings_of_photos_come_first_with_the_other_photo(opened, tmp_path):
    copy = Finding(kind="copy in class", text="nearly the same as …", other=2)
    items = [real(0), real(1, findings=(copy,)), real(2, "pear"), real(3, "pear")]
    facts = {"title": "photos", "kind": "real", "measures": {}, "findings": command.FINDINGS}
    with threaded(Session(tmp_path / "r", "ann", items, facts=facts)) as address:
        page = opened(address)
        expect(page.locator(".tile")).to_have_count(1)
        expect(page.locator(".tile")).to_contain_text("copy in another class")
        press(page, "Enter")
        expect(page.locator("#others")).to_contain_text("train/pear/2.png")
        press(page, "r", "Escape")
        progress(page, "1 rejected")
        page.locator("[name=finding]").select_option("")
        expect(page.locator(".tile")).to_have_count(4)
        assert page.problems == []


@pytest.mark.parametrize("width", [320, 400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_screen_and_can_be_read(opened, session, width, scheme):
    def luminance(colour):
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    with threaded(session) as address:
        page = opened(address, width, scheme)
        press(page, "k", "r", "Enter")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator("#large").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        for what, least in (("body", 7), ("button.keep", 4.5), ("button.reject", 4.5), ("dt", 4.5)):
            style = page.locator(what).first.evaluate(
                "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
            )
            dark, light = sorted(map(luminance, style))
            assert (light + 0.05) / (dark + 0.05) >= least, what


def test_names_notes_and_prompts_stay_text(opened, tmp_path):
    items = [real(0, EVIL, prompt=EVIL, context=EVIL, measures={EVIL: 1.0})]
    path = tmp_path / "r"
    decisions.act(path, "note", dict(item.key for item in items), EVIL, note=EVIL)
    facts = {"title": EVIL, "kind": "real", "measures": {EVIL: EVIL}, "findings": {}}
    with threaded(Session(path, EVIL, items, facts=facts)) as address:
        page = opened(address)
        press(page, "Enter")
        expect(page.locator("#facts")).to_contain_text(EVIL)
        assert page.locator("h1").inner_text() == EVIL
        assert page.locator("img[src=x]").count() == 0 and page.problems == []


def test_another_site_can_neither_read_nor_decide_nor_frame_it(browser, session):
    """A hostile page that knows even the address; its own origin is another port."""
    import http.server
    import threading

    class Hostile(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><iframe id=f></iframe>")

        def log_message(self, *_):
            pass

    with threaded(session) as address, http.server.HTTPServer(("127.0.0.1", 0), Hostile) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{other.server_port}/")
        tries = """async (address) => {
            const body = JSON.stringify({verb: 'reject', images: [0], note: ''});
            const got = [];
            const json = {'Content-Type': 'application/json'};
            for (const options of [{}, {method: 'POST', body}, {method: 'POST', body, headers: json},
                                   {method: 'POST', body, mode: 'no-cors'}]) {
                const path = options.method ? 'act' : 'items';
                got.push(await fetch(address + path, options).then(a => a.text(), () => 'blocked'));
            }
            const image = new Image();
            image.src = address + 'thumbnail/0';
            got.push(await image.decode().then(() => 'drawn', () => 'blocked'));
            document.getElementById('f').src = address;
            return got;
        }"""
        assert page.evaluate(tries, address) == ["blocked"] * 5
        page.wait_for_timeout(300)
        assert page.frame_locator("#f").locator("#gallery").count() == 0
        other.shutdown()
        page.close()
    assert not session.path.exists()


def test_five_thousand_images_are_turned_page_by_page(opened, tmp_path, many):
    facts = {"title": "many", "kind": "synthetic", "measures": MEASURES, "findings": {}}
    session = Session(tmp_path / decisions.FILE, "ann", many, facts=facts)
    with threaded(session) as address:
        page = opened(address)
        progress(page, "0 of 5000 decided")
        assert page.locator(".tile").count() < 100
        press(page, *["PageDown"] * 10, "k", "End", "k")  # the last one leads to the next page
        expect(page.locator("#place")).to_have_text("12 / 84")
        page.locator("[name=measure]").select_option("contrast")
        page.locator("[name=order]").select_option("down")
        assert page.locator(".tile img").first.get_attribute("src") == "thumbnail/1999"
        page.locator("[name=label]").select_option("orange")
        expect(page.locator("#matching")).to_have_text("1500 of 5000")
        press(page, "Escape", "a", "r")
        progress(page, "62 of 5000 decided: 2 kept, 60 rejected")
        last = page.locator(".tile img").first
        assert last.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
        assert page.problems == []


def test_two_hundred_decisions_survive_a_kill_in_the_middle(opened, tmp_path):
    folder = synthetic(tmp_path / "shards", {"apple": 120, "banana": 80})
    wanted = ["kr"[number % 3 == 0] for number in range(200)]
    words = ("--synthetic", folder, "--data", "none", "--reviewer", "ann")
    with served(*words, folder=tmp_path) as (process, address):
        page = opened(address)
        press(page, *wanted[:90])
        expect(page.locator("#progress")).to_have_text(re.compile(r"^[6-9]\d of 200"))
        process.send_signal(signal.SIGKILL)  # while others of the ninety may be under way
        process.wait()
        press(page, "k")
        expect(page.locator("#problem")).to_contain_text("Not saved")
        shown = page.locator("#bar").evaluate("bar => bar.value")
        page.close()
    kept = verdicts(folder)
    assert len(kept) >= shown >= 60
    with served(*words, folder=tmp_path) as (_, address):
        page = opened(address)
        progress(page, f"{len(kept)} of 200 decided")
        page.locator("[name=verdict]").select_option("undecided")
        press(page, "Escape")
        press(page, *wanted[len(kept) :])
        progress(page, "200 of 200 decided: 133 kept, 67 rejected")
    assert verdicts(folder) == [{"k": "keep", "r": "reject"}[key] for key in wanted]


def verdicts(folder: Path) -> list[str]:
    """What the set's file says of its images, in their order."""
    found = decisions.current(decisions.read(folder / decisions.FILE))
    said = {name: one.verdict for (name, _), one in found.items()}
    return [said[item.name] for item in of_shards(folder) if item.name in said]
