"""The agent runtime: a journal of events, and what plans, remembers and acts from it."""
