"""Figures: each takes rows and axes and draws them; the catalogue lists what a folder of runs allows."""
