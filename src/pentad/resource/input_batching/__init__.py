"""Which inputs of different types and lengths are computed together."""
