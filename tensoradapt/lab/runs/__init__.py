"""Runs: what one run is, how it is computed, and the store of finished ones."""
