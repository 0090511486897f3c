"""One YAML file is one experiment: its sections, their defaults and their checks."""
