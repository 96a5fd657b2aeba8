"""Who may hold how much of what several agents share."""
