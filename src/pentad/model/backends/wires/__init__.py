"""How remote servers are spoken to: one file a protocol, one way to read what comes back."""
