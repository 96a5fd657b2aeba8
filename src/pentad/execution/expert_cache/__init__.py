"""Which experts of a mixture lie in fast memory, and which are brought there ahead of their use."""
