"""KV policies: which cached keys and values of a sequence stay."""
