"""Storage: load an adapter into a model, model cards, the hub."""
