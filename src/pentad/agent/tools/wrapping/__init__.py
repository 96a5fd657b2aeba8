"""Tool wrappers: what stands between an agent and each call of a tool."""
