"""The page's server, for this machine alone and for who has its address.

It listens on 127.0.0.1, and every path begins with a secret. There are no cookies that a browser could send
along for another page, a request under another host's name (DNS rebinding) is refused, and so is one that
changes something and does not come from the page itself. The page may load nothing from elsewhere.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.files import checked_json
from review.session import Session

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
FILES = {
    "": ("index.html", "text/html"),
    "review.css": ("review.css", "text/css"),
    "review.js": ("review.js", "text/javascript"),
}
"""Path -> file and type: nothing else on the disk has an address."""
MOST = 2**22
"""Bytes of a request: the numbers of half a million images."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serves a session until `shutdown`."""

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0) -> None:
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise UserError(f"--port {port}: cannot be opened ({error.strerror}); give another") from None
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    @property
    def address(self) -> str:
        """What to open in the browser."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no news."""


class RefusedError(Exception):
    """A request that is not answered, with the status that says so."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        """Page, list of images, pictures."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """What changes something."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address with its secret does not belong into a log."""

    def _answer(self, method: Callable[[str], tuple[str, bytes]]) -> None:
        try:
            kind, body = method(self._asked())
        except RefusedError as refused:
            self.close_connection = True  # a body may be left unread
            self._send(refused.status, "text/plain", str(refused).encode())
        except UserError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode())
        else:
            self._send(HTTPStatus.OK, kind, body)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        picture = kind.startswith("image/")
        kept = "private, max-age=86400" if picture else "no-store"
        sent = {"Content-Type": kind if picture else f"{kind}; charset=utf-8", "Cache-Control": kept}
        for name, value in {**HEADERS, **sent, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """What the server calls itself: no more than needed."""
        return "orchard"

    def _asked(self) -> str:
        """The path behind the secret; raise `RefusedError` for a request that has no business here."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "open the address that the command printed")
        token, slash, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not (slash and hmac.compare_digest(token.encode(), self.server.token.encode())):
            raise RefusedError(HTTPStatus.FORBIDDEN, "open the address that the command printed")
        return path

    def _get(self, path: str) -> tuple[str, bytes]:
        if path in FILES:
            name, kind = FILES[path]
            return kind, (PAGE / name).read_bytes()
        session = self.server.session
        if path == "items":
            return _json(session.page())
        what, _, number = path.partition("/")
        if what == "thumbnail":
            return "image/webp", session.thumbnail(_number(number, len(session.pictures)))
        if what == "picture":
            return "image/webp", session.picture(_number(number, len(session.pictures)))
        if what == "beside":
            return _json(session.beside(_number(number, len(session.items))))
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")

    def _post(self, path: str) -> tuple[str, bytes]:
        if self.headers.get("Origin") not in {f"http://{host}" for host in self.server.hosts}:
            raise RefusedError(HTTPStatus.FORBIDDEN, "not from this page")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON")
        if path != "act":
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such page")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= MOST):
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {MOST} bytes")
        try:
            return _json(self.server.session.act(checked_json.parse(self.rfile.read(int(length)))))
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None


def _number(text: str, count: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < count):
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such image")
    return int(text)


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value, ensure_ascii=False).encode()
