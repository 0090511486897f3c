"""The pure steps, what they eat, the state that they make, and how it is kept."""
