"""Write one file of a package index to standard output: its size on the first line, then its bytes.

``assets`` runs this file in a process of its own, because pip's index client is no public API. The client reads all of
pip's configuration: indexes, find-links, credentials, certificates, proxy, timeout. ``pip download`` itself is not
used: it runs the setup.py of a source archive to learn the metadata. Here nothing is built, installed or run.
"""

import logging
import shutil
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# ask nothing, keep no second copy, and undo settings that would hide wheels or source archives
_OPTIONS = ("--no-input", "--no-cache-dir", "--no-binary=:none:", "--only-binary=:none:")


class _Failures(logging.Handler):
    """The pages that could not be read, and why; pip itself only logs them."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith(("Could not fetch", "Skipping page")):
            self.texts.append(record.getMessage().removesuffix(" - skipping"))


def main(output: Any, package: str, filename: str, sha256: str) -> None:
    """Write the file to ``output``; exit with the reason if it is not found or declared with another hash."""
    _find_pip()
    from pip._internal.commands import create_command

    command: Any = create_command("install")
    with command.main_context():
        options, _ = command.parse_args([*_OPTIONS])
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)
        link = _find(finder, package, filename)
        if link.hash_name == "sha256" and link.hash != sha256:
            raise SystemExit(f"{link} declares sha256 {link.hash}, expected {sha256}: that index serves another file")
        response = session.get(link.url_without_fragment, headers={"Accept-Encoding": "identity"}, stream=True)
        response.raise_for_status()
        response.raw.enforce_content_length = False  # assets compares the sizes; pip 26 raises
        print(response.headers.get("Content-Length", 0), file=output, flush=True)
        shutil.copyfileobj(response.raw, output.buffer, 1 << 18)


def _find_pip() -> None:
    """Make pip importable: in an environment without it, from the wheel that comes with Python."""
    if find_spec("pip"):
        return
    bundled = find_spec("ensurepip")
    sys.path += map(str, Path(bundled.origin).parent.glob("_bundled/pip-*.whl")) if bundled and bundled.origin else ()
    if not find_spec("pip"):
        absent = ", and neither is ensurepip; install pip as the system does (Debian: apt-get install python3-pip)"
        raise SystemExit(f"pip is not installed beside this Python{'; run python -m ensurepip' if bundled else absent}")


def _find(finder: Any, package: str, filename: str) -> Any:
    """Return the link to the file on the first page that lists it."""
    failures, logger = _Failures(), logging.getLogger("pip._internal.index.collector")
    logger.addHandler(failures)
    logger.setLevel(logging.DEBUG)
    links = [candidate.link for candidate in finder.find_all_candidates(package)]
    for link in links:
        if link.filename == filename:
            return link
    pages = [*finder.find_links, *finder.search_scope.get_index_urls_locations(package)]
    asked = f"pip looked at {' '.join(pages)}" if pages else "pip is set to no-index, so no index was asked"
    raise SystemExit("; ".join([f"{asked} and found {len(links)} other files", *failures.texts]))


if __name__ == "__main__":
    try:
        with redirect_stdout(sys.stderr):  # what pip prints is not the file
            main(sys.__stdout__, *sys.argv[1:])
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
