"""Leaves the tests of the plug-in out where it is not installed, and says so."""

from importlib.metadata import PackageNotFoundError, distribution

MISSING = "tensoradapt-paper is not installed, so its tests are left out: pip install -e benchmarks/paper"
collect_ignore = ["conftest.py", "instruct_trl_worker.py", "proteins.py"]  # would be imported to look for doctests
collect_ignore_glob = []
try:
    distribution("tensoradapt-paper")
except PackageNotFoundError:
    collect_ignore_glob = ["test_*.py"]


def pytest_terminal_summary(terminalreporter):
    if collect_ignore_glob:
        terminalreporter.write_line(MISSING)
