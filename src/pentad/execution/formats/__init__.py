"""Formats of stored tensors: for each, how its blocks lie in a file and what their numbers are."""
