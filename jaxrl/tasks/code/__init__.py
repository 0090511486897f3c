"""Programs to write, judged by tests in the sandbox."""
