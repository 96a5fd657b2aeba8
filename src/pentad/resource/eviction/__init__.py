"""Eviction: which loaded models leave when another one needs their memory."""
