"""Records, tokenizers, chat templates and packing: from a file to rows of tokens. No jax."""
