"""Layers: how each kind stores its matrix and computes with an update."""
