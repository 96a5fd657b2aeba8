"""How numbers travel between ranks: exactly, or in fewer bytes with a stated error."""
