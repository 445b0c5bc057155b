"""Find and download one file on the package index pip is configured to use; pip itself says which that is."""

import ast
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from tensoradapt.errors import TensorAdaptError

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
_CHUNK = 1 << 18
# what a dead or broken connection raises; ValueError and LookupError cover a malformed address or answer
_NETWORK = (OSError, http.client.HTTPException, ValueError, LookupError)


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks, credentials included: index urls in order, find-links pages and folders, and the connection."""

    indexes: tuple[str, ...]
    pages: tuple[str, ...]
    folders: tuple[Path, ...]
    cert: str | None
    proxy: str | None
    timeout: float


def pip_settings() -> PipSettings:
    """What `pip config list` reports, environment variables first; pip's own default index where none is set."""
    config = _pip_config()
    links = config.get("find-links", "").split()
    indexes = [config["index-url"]] if config.get("index-url") else _run_pip("-c", _DEFAULT_INDEX).split()
    indexes += config.get("extra-index-url", "").split()
    offline = config.get("no-index", "").lower() in {"1", "true", "yes", "on"}
    return PipSettings(
        indexes=() if offline else tuple(indexes),
        pages=tuple(link for link in links if link.startswith(("http://", "https://"))),
        folders=tuple(_folder(link) for link in links if not link.startswith(("http://", "https://"))),
        cert=config.get("cert") or None,
        proxy=config.get("proxy") or None,
        timeout=float(config.get("timeout") or config.get("default-timeout") or 60),
    )


def shown(url: str) -> str:
    """The url without credentials, query and fragment: fit to print."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def find(settings: PipSettings, package: str, filename: str, sha256: str, downloads: Path) -> str:
    """Address of the file on the first page that lists it.

    Raises TensorAdaptError, with every page that was tried, when no page lists it, when none can be reached, and when
    a page declares another sha256 than the expected one.
    """
    project = re.sub(r"[-_.]+", "-", package).lower()
    pages = [*settings.pages, *(f"{index.rstrip('/')}/{project}/" for index in settings.indexes)]
    tried = []
    for page in pages:
        try:
            files = _list_files(settings, page)
        except _NETWORK as error:
            tried.append(f"{shown(page)}: {_reason(error)}")
            continue
        if filename in files:
            return _checked(files[filename], sha256, filename, page)
        tried.append(f"{shown(page)}: lists {len(files)} files, not this one")
    found = "; ".join(tried) or "pip is set to no-index, so no index was asked"
    raise TensorAdaptError(
        f"{filename} was not found ({found}), expected a local copy or an index that has it: "
        f"put the file into {downloads} by hand, or set PIP_INDEX_URL to an index that can be reached"
    )


def download(settings: PipSettings, link: str, target: Path, *, progress: bool) -> None:
    """Write the file behind `link` to `target`.

    Raises TensorAdaptError when the connection fails or ends early; the caller checks the hash and removes the file.
    """
    try:
        response = _opener(settings, link).open(urldefrag(_bare(link)).url, timeout=settings.timeout)
    except _NETWORK as error:
        raise TensorAdaptError(_broken(link, _reason(error))) from error
    size = int(response.headers.get("Content-Length") or 0)
    done = 0
    with response, target.open("wb") as stream, _reporter(target.name, size, progress) as report:
        while chunk := _read(response, link):
            stream.write(chunk)
            done += len(chunk)
            report(len(chunk))
    if done < size:
        raise TensorAdaptError(_broken(link, f"ended after {done} of {size} bytes"))


def _pip_config() -> dict[str, str]:
    """Option values by bare name; a later rank wins: global, install, download, then the environment."""
    rank = {"global": 0, "install": 1, "download": 2, ":env:": 3}
    rows = []
    for line in _config_lines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in rank:
            rows.append((rank[section], option, str(ast.literal_eval(value))))
    return {option: value for _, option, value in sorted(rows)}


def _config_lines() -> list[str]:
    try:
        return _run_pip("-m", "pip", "config", "list").splitlines()
    except TensorAdaptError:
        # environments made without pip still have its variables
        options = {key[4:].lower().replace("_", "-"): value for key, value in os.environ.items() if key[:4] == "PIP_"}
        return [f":env:.{option}={value!r}" for option, value in options.items()]


def _run_pip(*arguments: str) -> str:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TensorAdaptError(
            f"asking pip for its index failed ({last}), expected pip to be installed beside this Python: "
            "run python -m ensurepip, set PIP_INDEX_URL, or put the archive into the cache's downloads folder"
        )
    return done.stdout


def _folder(link: str) -> Path:
    return Path(urllib.request.url2pathname(urlsplit(link).path) if link.startswith("file:") else link).expanduser()


def _list_files(settings: PipSettings, page: str) -> dict[str, str]:
    """File name to absolute address, with a declared sha256 in the fragment as in the HTML form."""
    request = urllib.request.Request(_bare(page), headers={"Accept": _ACCEPT})
    with _opener(settings, page).open(request, timeout=settings.timeout) as response:
        base, kind, text = response.url, response.headers.get_content_type(), response.read().decode("utf-8")
    links = _json_links(text) if kind.endswith("json") else _html_links(text)
    return {unquote(urlsplit(link).path).rpartition("/")[2]: urljoin(base, link) for link in links}


def _json_links(text: str) -> list[str]:
    links = []
    for file in json.loads(text)["files"]:
        declared = file.get("hashes", {}).get("sha256")
        links.append(f"{file['url']}#sha256={declared}" if declared else file["url"])
    return links


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for key, value in attrs if key == "href" and value]


def _html_links(text: str) -> list[str]:
    parser = _Anchors()
    parser.feed(text)
    return parser.links


def _checked(link: str, sha256: str, filename: str, page: str) -> str:
    declared = re.fullmatch(r"sha256=([0-9a-f]{64})", urlsplit(link).fragment)
    if declared and declared[1] != sha256:
        raise TensorAdaptError(
            f"{shown(page)} declares sha256 {declared[1]} for {filename}, expected {sha256}: "
            "that index serves another file under this name; set PIP_INDEX_URL to one that does not"
        )
    return link


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _opener(settings: PipSettings, url: str) -> urllib.request.OpenerDirector:
    """An opener that sends an index's credentials to the host they were given for, and to no other."""
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    for source in (*settings.pages, *settings.indexes, url):
        parts = urlsplit(source)
        if parts.username is not None:
            root = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/", "", ""))
            passwords.add_password(None, root, unquote(parts.username), unquote(parts.password or ""), True)
    context = ssl.create_default_context(cafile=settings.cert)
    proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
    return urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPBasicAuthHandler(passwords),
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _broken(link: str, reason: str) -> str:
    return (
        f"the download of {shown(link)} failed ({reason}), expected the whole file: "
        "nothing of it was kept; check the connection and run again"
    )


def _read(response: Any, link: str) -> bytes:
    # OSError from the connection must not pass for an OSError of the disk
    try:
        return response.read(_CHUNK)
    except _NETWORK as error:
        raise TensorAdaptError(_broken(link, _reason(error))) from error


@contextmanager
def _reporter(label: str, size: int, progress: bool) -> Iterator[Callable[[int], None]]:
    if not progress:
        yield lambda count: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    except ImportError:
        yield _lines(label, size)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=size or None)
        yield lambda count: bar.update(task, advance=count)


def _lines(label: str, size: int) -> Callable[[int], None]:
    done, next_line = 0, 0

    def report(count: int) -> None:
        nonlocal done, next_line
        done += count
        if done >= next_line:
            print(f"{label}: {done / 1e6:.1f} of {size / 1e6:.1f} MB", file=sys.stderr, flush=True)
            next_line = done + max(size // 10, 1)

    return report
