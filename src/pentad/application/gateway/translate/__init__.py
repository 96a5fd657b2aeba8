"""Between the wire formats and pentad.types: requests downwards, deltas upwards."""
