"""Sites are the matrices of a model that can be adapted. Nothing here needs torch."""
