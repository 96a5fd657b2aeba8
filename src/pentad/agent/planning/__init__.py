"""Planners: what to ask the model next, and what its answer means."""
