"""One model computed by several processes: ranks, each with its layers, heads, columns and experts."""
