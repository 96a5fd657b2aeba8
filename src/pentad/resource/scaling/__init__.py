"""How many replicas of which model are up, and where, as the load comes and goes."""
