"""The KV cache's book-keeping: blocks, prefixes, tables. No tensor is touched here."""
