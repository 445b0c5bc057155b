"""Optional integrations: each module imports its own library, and nothing else does."""
