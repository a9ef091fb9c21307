"""A hub on localhost: files with ranges, and connections that break on request."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`files` by name, of one repository at one commit, which `main` and the tag v1 point to."""

    repository: str
    files: dict[str, bytes]
    break_after: int | None = None
    """The first GET of a file ends after so many bytes."""
    redirects_forever: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, name and range of every request for a file."""
    address: str = ""


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.address` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def _answer(self, body: bool) -> None:
            if hub.redirects_forever:
                self.send_response(307)
                self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            found = re.fullmatch(
                r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path.partition("?")[0]
            )
            if found is None or found[1] != hub.repository:
                return self._refuse("RepoNotFound")
            if found[2] not in ("main", "v1", COMMIT):
                return self._refuse("RevisionNotFound")
            content = hub.files.get(found[3])
            if content is None:
                return self._refuse("EntryNotFound")
            asked = self.headers.get("Range")
            hub.requests.append((self.command, found[3], asked))
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "")
            start = int(span[1]) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if span:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.end_headers()
            if body and hub.break_after is not None:
                self.wfile.write(content[start : start + hub.break_after])
                hub.break_after = None
                self.close_connection = True
            elif body:
                self.wfile.write(content[start:])
            return None

        def _refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
