"""Certificates: what a model is worth beside its source, measured so that others can check it."""
