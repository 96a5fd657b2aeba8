"""Agents over the Agent2Agent protocol 1.0, through the official SDK (extra `a2a`). A task is a run."""
