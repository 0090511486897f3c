"""jaxrl: post-training of language models in JAX and Flax. Importing it imports neither jax nor
transformers.
"""

__version__ = "0.1.0"
