"""Layers: how each kind of layer stores its matrix and adds the updates of adapters."""
