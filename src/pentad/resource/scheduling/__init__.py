"""Batch scheduling: which sequences compute how many tokens in one engine step."""
