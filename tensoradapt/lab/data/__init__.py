"""Data has the pinned models and archives, and loads models by name."""
