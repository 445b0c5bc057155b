"""Where the parts of a drawn tensor network go: shapes alone, no matplotlib."""
