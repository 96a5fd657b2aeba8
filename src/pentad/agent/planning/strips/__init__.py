"""Classical planning: PDDL read and grounded, solved by search, and plans judged."""
