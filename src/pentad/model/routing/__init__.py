"""Which backend serves a request (coverage.md, interface 10)."""
