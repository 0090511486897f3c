"""The sampler: requests in, completions out."""
