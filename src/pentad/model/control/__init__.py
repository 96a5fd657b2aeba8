"""The joint choice of one model call over all layers: situation, prediction, search, and what came of it."""
