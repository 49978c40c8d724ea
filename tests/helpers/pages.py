"""The report's page as a reader sees it: tags, tables, text and figures."""

import base64
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from evaluate.report.context import Context


def context(**more):
    return Context(title="fruit", commands=["python -m evaluate --ratios all"], **more)


class Page(HTMLParser):
    """Tags with their attributes, the text of each cell of each table, and all text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.text, self._cell = [], [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append((dict(attrs).get("class", ""), []))
        if tag == "tr":
            self.tables[-1][1].append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell.append(data + " ")

    def named(self, kind):
        return [rows for name, rows in self.tables if kind in name.split()]

    def images(self):
        return [attrs for tag, attrs in self.tags if tag == "img"]


def svg(image):
    head, data = image["src"].split(",", 1)
    assert head == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(data))


def svgs(page):
    return [svg(image) for image in page.images() if "svg" in image["src"][:20]]
