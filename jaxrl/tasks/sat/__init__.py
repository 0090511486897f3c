"""Boolean formulas to satisfy."""
