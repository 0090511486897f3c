"""Numbers to compute or to reach."""
