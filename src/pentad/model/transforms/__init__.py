"""Transforms make another form of a model: smaller, or cheaper to run. See base.py."""
