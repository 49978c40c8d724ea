"""A local stand-in of the Hub's HTTP API: creating a repository, committing to it, fetching from it."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stand_in"


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

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        if match := re.match(r"/api/(model|dataset)s/(.+)/tree/main", self.path):
            self.tree(match[1], match[2])
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
        self.fetch(body=False)

    def tree(self, kind: str, repo: str) -> None:
        there = {name: data for (k, r, name), data in self.server.files.items() if (k, r) == (kind, repo)}
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in there.items()
        ]
        self.answer(entries if entries else {"error": "Repository not found"}, 200 if entries else 404)

    def fetch(self, *, body: bool) -> None:
        repo, _, name = self.path[1:].partition("/resolve/main/")
        data = self.server.files.get(("model", repo, name))
        if data is None:
            self.answer({"error": "Entry not found"}, 404)
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
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
            if line["key"] == "file":
                self.server.files[kind, name, value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.server.files[kind, name, value["path"]] = self.server.blobs[value["oid"]]
        self.answer(
            {"success": True, "commitUrl": f"{self.server.address}/{name}/commit/1", "commitOid": "1" * 40}
        )


def _mode(name: str) -> str:
    return "lfs" if name.endswith((".safetensors", ".parquet")) else "regular"
