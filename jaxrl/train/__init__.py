"""The stages as stories, and what they share."""
