"""Analysis of finished runs: statistics, the frontier of accuracy against parameters, plots. Never imports torch."""
