"""Data: pinned models and archives, and the tasks."""
