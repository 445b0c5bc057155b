"""Check that the current commit can be released, and leave its wheel and source archive in dist/.

    python .ci/release.py                                  # with the Python that runs it
    python .ci/release.py --python python3.12 python3.13   # with others

Needs git, and ``build`` and ``twine`` (pip install build twine). For each Python it installs both archives in turn,
with the core dependencies alone in a new venv, and works with them there: planning without torch, import time, an
adapter from start to export. Prints a line for each check; exits with 1 if one does not hold. By hand remain
``git tag vX.Y.Z`` and the upload.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
LARGEST = 5_000_000  # bytes of an archive


def main() -> int:
    """Run all checks; returns how the process shall exit."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--python", nargs="+", default=[sys.executable])
    p.add_argument("--any-state", action="store_true", help="also with uncommitted changes")
    args = p.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    held = [
        args.any_state or check("all is committed", not output("git", "status", "--porcelain"), ROOT),
        check("the changelog has the version, with its date", dated(version), version),
        check("the archives are built", built(), DIST),
    ]
    wheel, source = DIST / f"tensoradapt-{version}-py3-none-any.whl", DIST / f"tensoradapt-{version}.tar.gz"
    names = zipfile.ZipFile(wheel).namelist()
    twine = succeeds(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
    size = max(wheel.stat().st_size, source.stat().st_size)
    held += [
        check("twine check --strict", twine),
        check("the wheel is typed, and holds the package alone", typed_alone(names), f"{len(names)} files"),
        check("the source archive has the tests", "tests/conftest.py" in members(source)),
        check("both need the same packages", needs_of_wheel(wheel) == needs_of_source(source)),
        check(f"both have less than {LARGEST:,} bytes", size < LARGEST, f"{size:,}"),
    ]
    held += [works(python, (wheel, source)) for python in args.python]
    return 0 if all(held) else 1


def check(what: str, holds: bool, figure: object = "") -> bool:
    """Print a line that says what was checked, whether it holds, and a figure."""
    print(f"{'ok  ' if holds else 'FAIL'} {what} {f'({figure})' if figure else ''}", flush=True)
    return holds


def dated(version: str) -> bool:
    """Whether the newest part of the changelog is of this version, with a date."""
    newest = re.search(r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    return newest is not None and newest[1] == version and re.fullmatch(r"\d{4}-\d\d-\d\d", newest[2]) is not None


def built() -> bool:
    """Build both archives into an empty dist/."""
    for old in DIST.glob("tensoradapt-*"):
        old.unlink()
    return succeeds(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))


def typed_alone(names: list[str]) -> bool:
    """Whether the names of a wheel have py.typed and nothing outside the package."""
    folders = {name.split("/")[0] for name in names}
    return "tensoradapt/py.typed" in names and all(folder.startswith("tensoradapt") for folder in folders)


def members(source: Path) -> set[str]:
    """The files of a source archive, without its first folder."""
    with tarfile.open(source) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def needs_of_wheel(wheel: Path) -> list[str]:
    """The packages that a wheel needs, with its extras'."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return needs(archive.read(name))


def needs_of_source(source: Path) -> list[str]:
    """The packages that a source archive needs, with its extras'."""
    with tarfile.open(source) as archive:
        (name,) = (name for name in archive.getnames() if re.fullmatch(r"[^/]+/PKG-INFO", name))
        found = archive.extractfile(name)
        assert found is not None, f"{name} is a file"
        return needs(found.read())


def needs(metadata: bytes) -> list[str]:
    """The lines of a distribution's metadata that name a package it needs."""
    return sorted(line for line in metadata.decode().splitlines() if line.startswith("Requires-Dist: "))


def works(python: str, archives: Sequence[Path]) -> bool:
    """Install archives with the core dependencies alone in a new venv of a Python, in turn, and work with each."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "venv" / "bin" / "python"
        if not succeeds(python, "-m", "venv", str(own.parents[1])):
            return check(f"{python} makes a venv", False)
        held = [_works(own, archive) for archive in archives]
        return all(held)


def _works(own: Path, archive: Path) -> bool:
    """Install an archive in the place of another one, if any, and work with it."""
    pip = (str(own), "-m", "pip")
    made = succeeds(*pip, "uninstall", "--yes", "--quiet", "tensoradapt")
    made = made and succeeds(*pip, "install", "--quiet", str(archive))
    done = made and subprocess.run([own, ROOT / ".ci" / "use_core.py"], cwd=own.parents[2], check=False).returncode == 0
    what = f"{archive.name.removeprefix('tensoradapt-')} installs and works"
    return check(what, done, output(str(own), "--version"))


def succeeds(*command: str) -> bool:
    """Whether a command ends well; prints what it said if not."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        print(ran.stdout[-2000:], ran.stderr[-2000:])
    return ran.returncode == 0


def output(*command: str) -> str:
    """What a command prints, in the folder of the project."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
