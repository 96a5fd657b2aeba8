"""Speculation: several tokens of a sequence verified in one step. Strategies live in the model layer."""
