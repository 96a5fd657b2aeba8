"""Functions as learnable weights: a model edits an agent's functions by what came of its runs."""
