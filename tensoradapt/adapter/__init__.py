"""An adapter holds the numbers of a plan; here are their draws and scale, and the file they are saved in."""
