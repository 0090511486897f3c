"""The verifier pool: verify functions in processes that may hang or die."""
