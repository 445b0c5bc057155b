"""Surgery: the only code that changes a model. Knows layer kinds and pairs (A, B), never parameterizations."""
