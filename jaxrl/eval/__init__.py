"""A policy or a baseline, asked a split of a task."""
