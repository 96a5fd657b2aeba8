"""Context builders: a planner's draft, made to fit the token budget. What is left out is declared."""
