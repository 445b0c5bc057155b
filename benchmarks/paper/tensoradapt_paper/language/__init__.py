"""Tasks of language models: instructions with questions, and preference pairs."""
