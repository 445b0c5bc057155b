"""Sweeps: a specification becomes run ids, an executor runs them, each leaves one folder in the run store."""
