"""The one place that knows Flax: the transformer and its parts as pure functions of arrays."""
