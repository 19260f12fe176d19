"""A Hub of files: what the clients of the Hugging Face Hub ask for, answered from a folder by a small HTTP server."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = re.compile(r"/datasets/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)")
INFO = re.compile(r"/api/datasets/([\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?")
TREE = re.compile(r"/api/datasets/([\w.-]+/[\w.-]+)/tree/([\w.-]+)/?(.*)")
PATHS = re.compile(r"/api/datasets/([\w.-]+/[\w.-]+)/paths-info/([\w.-]+)")


class FakeHub:
    """The data sets below `root`, as `owner/name/...`; `log` holds every request as (method, path, range)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None  # bytes of a file after which the connection breaks, until it is None
        self.endpoint = ""

    def downloads(self) -> list[tuple[str, str | None]]:
        """File and byte range of each request for a file's content, without cards."""
        found = [(RESOLVE.fullmatch(path), span) for method, path, span in self.log if method == "GET"]
        return [(match[3], span) for match, span in found if match and "README" not in match[3]]


@contextmanager
def serving(root: Path) -> Iterator[FakeHub]:
    hub = FakeHub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_POST(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        if match := RESOLVE.fullmatch(path):
            self.send_file(self.hub.root / match[1] / match[3], with_body)
        elif match := PATHS.fullmatch(path):
            self.send_json([self.entry(match[1], name) for name in paths_of(body) if self.exists(match[1], name)])
        elif match := TREE.fullmatch(path):
            self.send_tree(
                match[1], match[3], "true" in parse_qs(urlsplit(self.path).query.lower()).get("recursive", [])
            )
        elif (match := INFO.fullmatch(path)) and (self.hub.root / match[1]).is_dir():
            self.send_json(self.info(match[1]))
        elif path == "/":
            self.send_json({})
        else:
            self.send_error_json()

    def exists(self, repository: str, name: str) -> bool:
        return (self.hub.root / repository / name).exists()

    def info(self, repository: str) -> dict[str, object]:
        folder = self.hub.root / repository
        card = re.search(r"^license: *(\S+)", (folder / "README.md").read_text(), re.MULTILINE)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        return {
            "_id": "1", "id": repository, "sha": REVISION, "private": False, "gated": False, "disabled": False,
            "downloads": 0, "likes": 0, "tags": [], "cardData": {"license": card[1]} if card else {},
            "siblings": [{"rfilename": name} for name in names],
        }  # fmt: skip

    def entry(self, repository: str, name: str) -> dict[str, object]:
        path = self.hub.root / repository / name
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "oid": etag_of(path), "size": path.stat().st_size}

    def send_tree(self, repository: str, below: str, recursive: bool) -> None:
        folder = self.hub.root / repository
        start = folder / below
        if not start.is_dir():
            self.send_error_json()
            return
        found = sorted(start.rglob("*") if recursive else start.iterdir())
        self.send_json([self.entry(repository, str(path.relative_to(folder))) for path in found])

    def send_file(self, path: Path, with_body: bool) -> None:
        if not path.is_file():
            self.send_error_json()
            return
        content = path.read_bytes()
        first = int(match[1]) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        last = int(match[1]) + 1 if (match := re.match(r"bytes=\d+-(\d+)", self.headers.get("Range") or "")) else None
        part = content[first:last]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{etag_of(path)}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if not with_body:
            return
        cut = self.hub.cut_after
        self.wfile.write(part if cut is None else part[:cut])
        if cut is not None and len(part) > cut:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error_json(self) -> None:
        match = re.match(r"/(?:api/)?datasets/([\w.-]+/[\w.-]+)", self.path)
        known = match is not None and (self.hub.root / match[1]).is_dir()
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()


def paths_of(body: bytes) -> list[str]:
    if body.startswith(b"{"):
        return json.loads(body)["paths"]
    return parse_qs(body.decode()).get("paths", [])


def etag_of(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
