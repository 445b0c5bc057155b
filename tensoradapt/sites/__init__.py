"""Sites: which matrices of a model can be adapted. No torch."""
