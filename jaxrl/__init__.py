"""jaxrl: post-training of language models in JAX, Flax. Importing it loads neither jax nor transformers."""

__version__ = "0.1.0"
