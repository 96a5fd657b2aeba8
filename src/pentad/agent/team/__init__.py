"""What agents of a team exchange: typed messages, facts with provenance, replicated state."""
