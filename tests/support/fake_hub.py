"""A hub in a thread: the endpoints that huggingface_hub uses to make a repository, commit files, list and read them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Files = dict[str, bytes]
FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit|branch|tree|revision)/(?P<rev>[^/]+)")
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")


class FakeHub(ThreadingHTTPServer):
    """Repositories by name: commits by hash, branches by name. ``asked`` are the files that were read or looked up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, dict[str, Files]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.closed: set[str] = set()  # repositories that nobody may write to
        self.refused: dict[str, tuple[int, str]] = {}  # repositories that answer with a status and a code
        self.private: dict[str, Any] = {}

    def create(self, repo: str) -> None:
        self.commits[repo], self.branches[repo] = {}, {}
        self.put(repo, {".gitattributes": b""})

    def put(self, repo: str, files: Files, branch: str = "main") -> str:
        """A commit with these files added, past every check."""
        if repo not in self.commits:
            self.create(repo)
        return self.commit(repo, {**self.files(repo, branch), **files}, branch)

    def commit(self, repo: str, files: Files, branch: str) -> str:
        names = sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items())
        oid = hashlib.sha1(f"{len(self.commits[repo])}{names}".encode()).hexdigest()
        self.commits[repo][oid], self.branches[repo][branch] = files, oid
        return oid

    def oid(self, repo: str, revision: str) -> str | None:
        return self.branches[repo].get(revision, revision if revision in self.commits[repo] else None)

    def files(self, repo: str, revision: str = "main") -> Files:
        return self.commits[repo].get(self.oid(repo, revision) or "", {})


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: FakeHub

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(body)["content"])
        elif (match := API.fullmatch(path)) and self.found(match["repo"]):
            getattr(self, match["what"])(match["repo"], match["rev"], body)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := RESOLVE.fullmatch(path):
            if self.found(match["repo"], match["rev"]):
                self.resolve(match["repo"], match["rev"], match["path"])
        elif (match := API.fullmatch(path)) and self.found(match["repo"], match["rev"]):
            getattr(self, match["what"])(match["repo"], match["rev"], b"")
        elif not match:
            self.answer(404, {"error": "no such page"})

    do_HEAD = do_GET

    def found(self, repo: str, revision: str | None = None) -> bool:
        status, code = self.server.refused.get(repo, (404, None if repo in self.server.commits else "RepoNotFound"))
        if code is None and revision is not None and self.server.oid(repo, revision) is None:
            code = "RevisionNotFound"
        if code:
            self.answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})
        return code is None

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        there = repo in self.server.commits
        if not there:
            self.server.create(repo)
            self.server.private[repo] = asked.get("visibility")
        self.answer(409 if there else 200, {"url": f"{self.server.url}/{repo}"})

    def validate(self, content: str) -> None:
        match = FRONT.match(content)
        front = yaml.safe_load(match[1]) if match else None
        known = isinstance(front, dict) and front.get("license", "mit") in ("mit", "apache-2.0")
        errors = [] if known else [{"message": '"license" must be one of mit, apache-2.0'}]
        self.answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, repo: str, _: str, body: bytes) -> None:
        paths = [file["path"] for file in json.loads(body)["files"]]
        self.answer(200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})

    def branch(self, repo: str, name: str, _: bytes) -> None:
        there = name in self.server.branches[repo]
        if not there:
            self.server.branches[repo][name] = self.server.branches[repo]["main"]
        self.answer(409 if there else 200, {})

    def commit(self, repo: str, revision: str, body: bytes) -> None:
        if repo in self.server.closed:
            self.answer(403, {"error": "you have read access alone"})
            return
        files = dict(self.server.files(repo, revision))
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        oid = self.server.commit(repo, files, revision)
        self.answer(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})

    def tree(self, repo: str, revision: str, _: bytes) -> None:
        files = self.server.files(repo, revision)
        self.answer(200, [{"type": "file", "path": p, "size": len(d), "oid": "0" * 40} for p, d in files.items()])

    def revision(self, repo: str, revision: str, _: bytes) -> None:
        self.answer(200, {"id": repo, "sha": self.server.oid(repo, revision)})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        self.server.asked.append((self.command, path))
        commit = {"X-Repo-Commit": self.server.oid(repo, revision)}
        data = self.server.files(repo, revision).get(path)
        if data is None:
            self.answer(404, {"error": "EntryNotFound"}, {"X-Error-Code": "EntryNotFound", **commit})
        else:
            self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', **commit})

    def answer(self, status: int, body: Any, headers: dict[str, Any] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": len(data)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that answers while the context is open."""
    hub = FakeHub()
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
