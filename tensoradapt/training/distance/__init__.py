"""How far a change of its factors moves an adapter's updates, and the length of a change that moves them as asked."""
