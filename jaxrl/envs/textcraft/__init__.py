"""TextCraft: crafting from recipes that must be combined."""
