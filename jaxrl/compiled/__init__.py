"""Programs compiled for hardware that is not here, and what stands in them."""
