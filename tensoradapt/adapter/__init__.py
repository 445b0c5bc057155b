"""The adapter: the numbers of a plan, their draws and scale, and the file they are saved in."""
