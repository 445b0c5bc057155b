"""Figures of runs, a file for each."""
