"""Agents over the public protocols: how a run's life is told in the words of each."""
