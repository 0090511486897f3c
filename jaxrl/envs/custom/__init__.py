"""Worlds of the user's own: a class with `start` and `step`, or one whose methods are tools."""
