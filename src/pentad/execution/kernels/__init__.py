"""Sets of op implementations that runners compute with, by name."""
