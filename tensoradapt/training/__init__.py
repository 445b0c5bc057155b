"""Training: the loop, its optimizer and state, preconditioning and rank reduction."""
