"""A stand-in for the hub on the loopback: the few endpoints that an upload uses, and what was uploaded."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_stand_in"
OID = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the stand-in knows.

    Args:
        url: where it listens.
        repositories: name -> branch -> name of a file -> its bytes.
        visibility: name -> what a repository was made as.
        messages: of commits.
        asked: method and path of every request.
        refuses: status with which a repository is not made, and what is said.
        large: endings of files that go to the store of large files.
    """

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    visibility: dict[str, Any] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuses: tuple[int, str] | None = None
    large: tuple[str, ...] = ()
    stored: dict[str, bytes] = field(default_factory=dict)

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repositories[repo][branch]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub until the context ends."""
    hub = Hub()

    class Handler(_Handler):
        known = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    known: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._asked()
        if self.path.partition("?")[0].removeprefix("/api/models/") not in self.known.repositories:
            return self._answer(404, {"error": "Repository not found"})
        return self._answer(200, {"sha": OID, "id": "x", "siblings": []})

    def do_PUT(self) -> None:
        self._asked()
        self.known.stored[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_POST(self) -> None:
        self._asked()
        body = self._body()
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._validated(json.loads(body)["content"])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            return self._created(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        repo, _, rest = path.removeprefix("/api/models/").replace("/preupload/", "\0preupload/").replace(
            "/commit/", "\0commit/"
        ).replace("/branch/", "\0branch/").partition("\0")  # fmt: skip
        kind, _, branch = rest.partition("/")
        if kind == "branch":
            self.known.repositories[repo].setdefault(branch, {})
            return self._answer(200, {})
        if kind == "preupload":
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(self.known.large or ("\0",)) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": modes})
        if kind == "commit":
            return self._committed(repo, branch, [json.loads(line) for line in body.splitlines() if line])
        return self._answer(404, {"error": f"nothing at {path}"})

    def _created(self, asked: dict[str, Any]) -> None:
        if self.known.refuses is not None:
            return self._answer(self.known.refuses[0], {"error": self.known.refuses[1]})
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        if name in self.known.repositories:
            return self._answer(
                409, {"error": "You already created this model repo", "url": f"{self.known.url}/{name}"}
            )
        self.known.repositories[name] = {"main": {}}
        self.known.visibility[name] = asked.get("visibility")
        return self._answer(200, {"url": f"{self.known.url}/{name}"})

    def _committed(self, repo: str, branch: str, lines: list[dict[str, Any]]) -> None:
        files = self.known.repositories[repo][branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.known.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.known.stored[value["oid"]]
        self._answer(200, {"commitUrl": f"{self.known.url}/{repo}/commit/{OID}", "commitOid": OID, "success": True})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.known.url}/store/{one['oid']}"}}} for one in asked["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _validated(self, content: str) -> None:
        head = yaml.safe_load(content.split("---\n")[1])
        wrong = [] if isinstance(head.get("tags"), list) else ["tags must be a list"]
        self._answer(400 if wrong else 200, {"errors": [{"message": one} for one in wrong], "warnings": []})

    def _asked(self) -> None:
        self.known.asked.append(f"{self.command} {self.path}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, status: int, record: Any) -> None:
        data = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
