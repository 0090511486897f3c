"""BabyAI's levels, played in words: what is seen as prose, what can be done as actions of many steps."""
