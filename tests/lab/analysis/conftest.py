"""Figures of tests are drawn without a window; tests/conftest.py closes them after each test."""

from matplotlib import pyplot

pyplot.switch_backend("agg")
