"""A policy with its arrays: its tokenizer, loaded from files or made, and handed from stage to stage."""
