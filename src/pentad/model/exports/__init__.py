"""Models in forms that only other engines run: read as far as it takes to know and check them."""
