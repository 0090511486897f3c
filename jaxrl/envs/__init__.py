"""Multi-turn environments: worlds that answer what a policy does. Host only, no jax."""
