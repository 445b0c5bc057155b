"""Tables: rows computed from runs."""
