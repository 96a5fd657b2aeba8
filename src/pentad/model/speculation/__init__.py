"""Strategies that draft tokens for the engine to verify; one file each."""
