"""Hypothesis profiles: fast (10 examples, the default) and nightly (2000); and what is left to ``-m thorough``."""

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.doctest import DoctestModule
from hypothesis import HealthCheck, settings

# before transformers is imported: an unknown model is to be refused at once, not after the hub's retries
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is: workers that each take every core wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # pytest sets it in workers, and commands would print for a terminal of that width
CALM = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
for profile, examples in {"fast": 10, "nightly": 2000}.items():
    settings.register_profile(profile, max_examples=examples, **CALM)
settings.load_profile("fast")

NO_CASE = SimpleNamespace(params={})

pytest.register_assert_rewrite("support")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path):
    """Look for doctests only where there are some: it imports the file, and some helpers need peft and trl."""
    collectors = yield
    if ">>>" in file_path.read_text(errors="replace") and file_path != Path(__file__):  # it has the sign in this line
        return collectors
    return [collector for collector in collectors if not isinstance(collector, DoctestModule)]


class FiguresAreClosed:
    """After each test and doctest, so that none meets the warning of more than 20 open figures."""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self):
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


@pytest.hookimpl(tryfirst=True)  # before those that -m leaves out are left out
def pytest_collection_modifyitems(items):
    """Mark as thorough what a test that is run for nearly every method is run for, but for a few methods."""
    from support.families import few

    cases = {}
    for item in items:
        for value in getattr(item, "callspec", NO_CASE).params.values():
            if isinstance(value, str):
                cases.setdefault((item.path, item.originalname), {}).setdefault(value, []).append(item)
    for named in cases.values():
        for value in set(named) - few(named):
            for item in named[value]:
                item.add_marker("thorough")


def pytest_collection_finish():
    """Collect garbage less often; not gc.freeze, which hides from Hypothesis who holds its random state."""
    gc.set_threshold(10_000)


def pytest_configure(config):
    config.pluginmanager.register(FiguresAreClosed())  # for the doctests of the package too


@pytest.fixture
def double():
    """Factors in float64, as those of the tests' models are."""
    from tensoradapt.testing.laws import float64

    with float64():
        yield


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine; offline mode, which is for the real one, is off within the test."""
    import huggingface_hub
    from support.fake_hub import fake_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with fake_hub() as found:
        yield found
