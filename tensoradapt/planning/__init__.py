"""Planning: from sites and arguments to a plan. No torch."""
