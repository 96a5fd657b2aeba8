"""Which rows of docs/coverage/coverage.md work, judged by recorded tests. See docs/coverage/evidence.md."""
