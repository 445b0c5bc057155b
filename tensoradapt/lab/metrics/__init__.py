"""Metrics: one record each, those that have a name, and any other by the name of a scorer or a function."""
