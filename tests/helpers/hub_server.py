"""A local stand-in of the Hub's HTTP API: repositories are made, committed to, listed and fetched from."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

TOKEN = "hf_stand_in"
COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """What was asked of it: ``repos`` {(kind, id): private} and ``files`` {(kind, id, path): bytes}."""

    def __init__(self, *, role: str = "write", broken: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.role, self.broken = role, broken
        self.repos: dict[tuple[str, str], bool] = {}
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.blobs: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which the Hub's client talks to this server."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }


@contextmanager
def serve(**options: Any) -> Iterator[Hub]:
    """A running server."""
    hub = Hub(**options)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def missing(self, code: str) -> None:
        """The Hub tells by a header what was not found."""
        self.answer({"error": "not found"}, 404, {"X-Error-Code": code})

    def answer(
        self, value: Any, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, content in headers.items():
            self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        # There is one commit, so its hash is as good as the branch's name.
        self.path = self.path.replace(COMMIT, "main")
        path, _, query = self.path.partition("?")
        if match := re.match(r"/api/(model|dataset)s/(.+)/tree/main/?(.*)", path):
            self.tree(match[1], match[2], unquote(match[3]), whole="recursive=true" in query.lower())
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(/revision/main)?", path):
            self.describe(match[1], match[2])
        elif "/resolve/" in self.path:
            self.fetch(body=True)
        elif self.path != "/api/whoami-v2":
            self.answer({"error": "not found"}, 404)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid user token"}, 401)
        else:
            auth = {"accessToken": {"role": self.server.role}}
            self.answer({"name": "mira", "orgs": [{"name": "lab"}], "auth": auth})

    def do_HEAD(self) -> None:
        self.path = self.path.replace(COMMIT, "main")
        self.fetch(body=False)

    def there(self, kind: str, repo: str) -> dict[str, bytes]:
        return {name: data for (k, r, name), data in self.server.files.items() if (k, r) == (kind, repo)}

    def describe(self, kind: str, repo: str) -> None:
        if (kind, repo) in self.server.repos:
            files = [{"rfilename": name} for name in self.there(kind, repo)]
            self.answer({"id": repo, "sha": COMMIT, "siblings": files})
        else:
            self.missing("RepoNotFound")

    def tree(self, kind: str, repo: str, folder: str, *, whole: bool) -> None:
        below = f"{folder}/" if folder else ""
        names = [name for name in self.there(kind, repo) if name.startswith(below)]
        if not whole:  # what lies deeper shows as its folder
            names = list(dict.fromkeys(below + name.removeprefix(below).split("/")[0] for name in names))
        entries = [self.entry(kind, repo, name) for name in names]
        known = (kind, repo) in self.server.repos
        if entries or (known and not folder):
            self.answer(entries)
        else:
            self.missing("EntryNotFound" if known or self.there(kind, repo) else "RepoNotFound")

    def entry(self, kind: str, repo: str, name: str) -> dict[str, Any]:
        data = self.there(kind, repo).get(name)
        if data is None:
            return {"type": "directory", "path": name, "oid": "0" * 40}
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def paths(self, kind: str, repo: str, names: list[str]) -> None:
        there = self.there(kind, repo)
        known = [n for n in names if n in there or any(other.startswith(f"{n}/") for other in there)]
        self.answer([self.entry(kind, repo, name) for name in known])

    def fetch(self, *, body: bool) -> None:
        repo, _, name = unquote(self.path[1:].partition("?")[0]).partition("/resolve/main/")
        kind = "dataset" if repo.startswith("datasets/") else "model"
        data = self.server.files.get((kind, repo.removeprefix("datasets/"), name))
        if data is None:
            self.missing("EntryNotFound")
            return
        tag = hashlib.sha256(data).hexdigest()
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if part:  # as a reader of a Parquet file's end asks
            data = data[int(part[1]) : int(part[2]) + 1]
        self.send_response(206 if part else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.body()
        if self.server.broken:
            self.answer({"error": "out of order"}, 500)
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/(model|dataset)s/(.+)/preupload/main", self.path):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": _mode(name), "shouldIgnore": False} for name in names]
            self.answer({"files": modes})
        elif match := re.fullmatch(rf"/api/(model|dataset)s/(.+)/paths-info/(?:main|{COMMIT})", self.path):
            self.paths(match[1], match[2], _names(body))
        elif match := re.fullmatch(r"/api/(model|dataset)s/(.+)/commit/main", self.path):
            self.commit(match[1], match[2], body)
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(body)["objects"])
        else:
            self.answer({"error": "not found"}, 404)

    def create(self, wanted: dict[str, Any]) -> None:
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        kind = wanted.get("type", "model")
        self.server.repos[kind, name] = wanted.get("visibility") == "private"
        self.answer({"url": f"{self.server.address}/{'' if kind == 'model' else 'datasets/'}{name}"})

    def batch(self, objects: list[dict[str, Any]]) -> None:
        links = [
            {**thing, "actions": {"upload": {"href": f"{self.server.address}/blob/{thing['oid']}"}}}
            for thing in objects
        ]
        self.answer({"transfer": "basic", "objects": links})

    def do_PUT(self) -> None:
        data = self.body()
        assert hashlib.sha256(data).hexdigest() == self.path.rsplit("/", 1)[1]
        self.server.blobs[self.path.rsplit("/", 1)[1]] = data
        self.answer({})

    def commit(self, kind: str, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "deletedFile":
                del self.server.files[kind, name, value["path"]]
            if line["key"] == "file":
                self.server.files[kind, name, value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.server.files[kind, name, value["path"]] = self.server.blobs[value["oid"]]
        self.answer(
            {"success": True, "commitUrl": f"{self.server.address}/{name}/commit/1", "commitOid": COMMIT}
        )


def _names(body: bytes) -> list[str]:
    """The paths that a client asks about, in JSON or as a form."""
    if body.startswith(b"{"):
        return json.loads(body)["paths"]
    return parse_qs(body.decode())["paths"]


def _mode(name: str) -> str:
    return "lfs" if name.endswith((".safetensors", ".parquet")) else "regular"
