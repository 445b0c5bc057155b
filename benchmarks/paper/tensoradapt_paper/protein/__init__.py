"""Tasks of proteins: polyreactivity of antibodies, masked residues, and folding."""
