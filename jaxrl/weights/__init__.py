"""Hugging Face and PEFT files, in and out."""
