"""The routes, one file per dialect; each is a function from the Gateway to its routes."""
