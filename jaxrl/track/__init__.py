"""What people see of a run: the console, the files of rows, the report."""
