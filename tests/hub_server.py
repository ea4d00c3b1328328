"""A local server that speaks the hub's protocol for huggingface_hub's own client, faults included.

    with HubServer({"owner/name": folder}) as hub:
        ...  # HF_ENDPOINT=hub.url

Small text files are served in place under git's sha1. Binary files are served as the hub serves
large ones: a redirect to another host under their sha256.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".pt", ".bin")
RESOLVE = re.compile(r"/(?P<repo>[\w.-]+(?:/[\w.-]+)?)/resolve/[\w.-]+/(?P<file>.+)")
API = re.compile(r"/api/models/(?P<repo>[\w.-]+/[\w.-]+?)(?P<what>/revision/.*|/tree/.*|)")
CDN = re.compile(r"/cdn/(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>.+)")

Kind = Literal["drop", "short", "corrupt", "stall", "unavailable"]


@dataclass
class Fault:
    """drop: half the body, then the connection closes. short: half the body, as if it were whole.
    corrupt: other bytes of the same length. stall: no answer for `seconds`. unavailable: 503."""

    kind: Kind
    times: int
    seconds: float = 0.0


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class HubServer:
    repositories: dict[str, Path]
    gated: dict[str, str] = field(default_factory=dict)
    """Repository to the token that opens it."""
    faults: dict[str, Fault] = field(default_factory=dict)
    """End of a file's name to what befalls it."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> "HubServer":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {}))
        self._server.RequestHandlerClass.hub = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take_fault(self, path: str, *kinds: Kind) -> Fault | None:
        """Return the fault of one of these kinds that befalls a file now, and use it up."""
        for end, fault in self.faults.items():
            if path.endswith(end) and fault.kind in kinds and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def bodies(self, end: str) -> list[Request]:
        """Return the requests for the content of files whose name ends so."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith(end)]


def etag(file: Path) -> str:
    content = file.read_bytes()
    if file.name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Be silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append(Request(self.command, path, dict(self.headers)))
        if fault := self.hub.take_fault(path, "stall"):
            time.sleep(fault.seconds)
        if self.hub.take_fault(path, "unavailable"):
            return self._send(503, b"", {})
        with suppress(BrokenPipeError, ConnectionResetError):  # a client that has given up
            if match := API.fullmatch(path):
                return self._api(match["repo"], match["what"])
            if match := RESOLVE.fullmatch(path):
                return self._resolve(match["repo"], match["file"])
            if match := CDN.fullmatch(path):
                return self._content(self.hub.repositories[match["repo"]] / match["file"], {})
            self._fail(404, "RepoNotFound")

    def _allowed(self, repo: str) -> bool:
        if repo not in self.hub.repositories:
            self._fail(401, "RepoNotFound")  # as the hub does, so that private names stay secret
            return False
        token = self.hub.gated.get(repo)
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            is_known = self.headers.get("Authorization") is not None
            self._fail(403 if is_known else 401, "GatedRepo")
            return False
        return True

    def _api(self, repo: str, what: str) -> None:
        if not self._allowed(repo):
            return
        folder = self.hub.repositories[repo]
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        names = [str(p.relative_to(folder)) for p in files]
        if what.startswith("/tree"):
            inside = what.split("/", 3)[3] + "/" if what.count("/") > 2 else ""
            tree = [
                {"type": "file", "path": name, "size": p.stat().st_size, "oid": etag(p)}
                for name, p in zip(names, files, strict=True)
                if name.startswith(inside)
            ]
            return self._json(tree) if tree else self._fail(404, "EntryNotFound")
        facts = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": []}
        self._json(facts | {"siblings": [{"rfilename": name} for name in names]})

    def _resolve(self, repo: str, name: str) -> None:
        if not self._allowed(repo):
            return
        file = self.hub.repositories[repo] / name
        if not file.is_file():
            return self._fail(404, "EntryNotFound")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(file)}"'}
        if not name.endswith(LARGE):
            return self._content(file, headers)
        headers |= {
            "X-Linked-Etag": f'"{etag(file)}"',
            "X-Linked-Size": str(file.stat().st_size),
            "Location": f"http://localhost:{self.hub.port}/cdn/{repo}/{name}",
        }
        self._send(302, b"", headers)

    def _content(self, file: Path, headers: dict[str, str]) -> None:
        body = file.read_bytes()
        name = file.name
        if self.command == "GET" and self.hub.take_fault(name, "corrupt"):
            body = body[: len(body) // 2] + bytes(len(body) - len(body) // 2)
        if self.command == "GET" and self.hub.take_fault(name, "short"):
            body = body[: len(body) // 2]
        status, start = 200, 0
        if match := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            status, start = 206, int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        body = body[start:]
        is_dropped = self.command == "GET" and self.hub.take_fault(name, "drop") is not None
        self._send(status, body, headers, n_sent=len(body) // 2 if is_dropped else len(body))

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(status, b"{}", headers | ({"X-Repo-Commit": COMMIT} if status == 404 else {}))

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], n_sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if n_sent is None else body[:n_sent])
            if n_sent is not None and n_sent < len(body):
                self.close_connection = True
