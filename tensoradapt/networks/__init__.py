"""Networks: layouts, labelled factors and their contraction. No torch."""
