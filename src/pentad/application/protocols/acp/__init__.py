"""Agents driven by editors, over the Agent Client Protocol and its official SDK (extra `acp`)."""
