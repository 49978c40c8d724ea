"""Sets to be looked through, a server for them in a process of its own, and requests to it."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pictures
from conftest import ROOT
from PIL import Image

from orchard import shards
from orchard.shards import ShardHeader
from review.server import Server
from review.session import Session


def synthetic(folder: Path, counts: Mapping[str, int], prompt: str = "a photo of {label}") -> Path:
    """A complete set of plain-coloured images, each another one, with a score in each row."""
    for place, (label, count) in enumerate(counts.items()):
        rows = [
            {
                "image": {"bytes": _png(place, i), "path": f"{label}-{i:06d}.png"},
                "label": place,
                "prompt": prompt.format(label=label) + (", on grass" if i % 2 else ", on sand"),
                "index": i,
                "seed": i,
                "contrast": float(i),
                "reason": "",
            }
            for i in range(count)
        ]
        header = ShardHeader(
            label=label,
            classes=list(counts),
            arguments={"screens": {}, "prompt": prompt, "base": "none", "lora": "", "shard_size": 1000},
            trained_on=[],
            versions={},
            count=count,
        )
        for number in range(-(-count // 1000)):
            part = rows[number * 1000 : (number + 1) * 1000]
            shards.write(shards.path_of(folder, label, number), part, header)
    shards.write_manifest(folder, shards.manifest_of(folder))
    return folder


def _png(place: int, number: int) -> bytes:
    colour = (60 + 50 * place % 190, number % 256, number // 256)
    return pictures.encoded(Image.new("RGB", (8, 8), colour))


@contextmanager
def served(*words: object, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m review` in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "review", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("open "):
                break
        else:
            raise AssertionError("".join(lines))
        yield process, line.removeprefix("open ").strip()
    finally:
        process.terminate()  # Ctrl-C is nothing to the background jobs of a shell
        process.communicate(timeout=60)


def ask(
    address: str, path: str = "", *, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; ``path`` goes on from the page's own, or begins with a slash."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection._encode_request = str.encode  # the library's own sends ASCII alone
    given = {"Host": parts.netloc} | {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.putrequest(method, path if path.startswith("/") else parts.path + path, skip_host=True)
    for name, value in given.items():
        if value is not None:
            connection.putheader(name, value)
    if data is not None and "Content-Length" not in given:
        connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def act(address: str, verb: str, *numbers: int, note: str = "", **headers: str) -> tuple[int, Any]:
    """What the page posts; status and answer."""
    parts = urlsplit(address)
    usual = {"Origin": f"http://{parts.netloc}", "Content_Type": "application/json"}
    body = {"verb": verb, "images": list(numbers), "note": note}
    status, _, answer = ask(address, "act", method="POST", body=body, **{**usual, **headers})
    return status, json.loads(answer) if status == 200 else answer.decode()


@contextmanager
def threaded(session: Session) -> Iterator[str]:
    """The server in a thread of this process; its address."""
    import threading

    with Server(session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.address
        finally:
            server.shutdown()
            thread.join()
