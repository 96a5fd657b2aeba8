"""Training recipes: how a stored model learns from a text, alone or from a teacher."""
