"""Other engines on the same file, side by side. scripts/peers installs them."""
