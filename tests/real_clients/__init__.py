"""Programs that people use, unmodified, against the real gateway: `scripts/real_clients`."""
