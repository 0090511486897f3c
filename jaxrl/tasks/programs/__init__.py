"""Small programs that are drawn, with their meaning: what do they print, and of what input."""
