"""Tasks of causal language models: prompts, answers, and pairs of answers."""
