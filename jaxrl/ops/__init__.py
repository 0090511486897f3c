"""Pure functions of arrays: the arithmetic of losses, advantages, attention and sampling."""
