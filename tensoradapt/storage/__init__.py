"""Storage loads an adapter into a model, writes model cards, and knows the hub."""
