"""The household: a room, things in and on its furniture, and one task about them, in ALFWorld's grammar."""
