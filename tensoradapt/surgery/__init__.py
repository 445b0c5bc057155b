"""Only this folder changes a model. It knows layer kinds and pairs (A, B), never parameterizations."""
