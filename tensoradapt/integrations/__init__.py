"""Integrations are optional; only they import the library that each is for."""
