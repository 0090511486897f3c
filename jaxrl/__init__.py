"""jaxrl: post-training of language models in JAX and Flax.

Importing it imports neither jax nor transformers: its public names (`docs/python.md`) are fetched from their
rooms when they are asked for.
"""

__version__ = "0.1.0"
