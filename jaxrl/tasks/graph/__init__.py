"""Questions about paths in a graph of entities."""
