"""Environments: where an agent's tools act, be it the real world, a record of it or a simulation."""
