"""Sandboxes: where the code that a model wrote is run."""
