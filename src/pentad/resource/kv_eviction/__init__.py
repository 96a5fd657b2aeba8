"""Eviction of cached KV blocks: which texts stay cached over the pauses of their runs."""
