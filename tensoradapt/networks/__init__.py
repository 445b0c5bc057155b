"""Layouts, labelled factors and their contraction. Nothing here needs torch."""
