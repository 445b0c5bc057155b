"""Reports: the table, the HTML page and the live view of a sweep."""
