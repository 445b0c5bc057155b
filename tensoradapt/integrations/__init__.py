"""Optional integrations; only they import the library that each is for."""
